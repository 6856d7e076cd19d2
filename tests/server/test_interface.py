"""What the server's OpenAPI document promises, and the models that it is told to offer."""

from pathlib import Path

import pytest
from places import GRAPHS
from serving import Serve

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")


def test_the_document_of_the_interface_is_whole(serve: Serve) -> None:
    server = serve()
    document = httpx.get(f"{server.address}/v1/openapi.json").json()
    paths = document["paths"]
    assert set(paths) >= {"/v1/separations", "/v1/separations/{id}", "/v1/models", "/healthz", "/readyz", "/metrics"}
    assert "multipart/form-data" in paths["/v1/separations"]["post"]["requestBody"]["content"]
    assert [m["name"] for m in httpx.get(f"{server.address}/v1/models").json()["models"]].count("drums_mini") == 1
    assert any((GRAPHS / "waves").iterdir())


def test_the_document_says_what_is_answered(serve: Serve) -> None:
    """benchmarks/serve_faults.py holds all of it to schemathesis, which found these."""
    server = serve()
    document = httpx.get(f"{server.address}/v1/openapi.json").json()
    for path, methods in document["paths"].items():
        answer = httpx.request("OPTIONS", server.address + path.replace("{id}", "0").replace("{name}", "0"))
        assert answer.status_code == 405 and answer.headers["content-type"] == "application/problem+json"
        assert {m.lower() for m in answer.headers["allow"].split(", ")} == set(methods), path
        for method, told in methods.items():
            kinds = {status: set(known.get("content", {})) for status, known in told["responses"].items()}
            assert all(k == {"application/problem+json"} for status, k in kinds.items() if status[0] in "45"), method
    metrics = httpx.get(f"{server.address}/metrics")
    assert (
        metrics.headers["content-type"].split(";")[0]
        in document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    )
    form = document["paths"]["/v1/separations"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"song", "model", "stems", "format", "residual"} <= set(form["properties"])


def test_models_that_are_named_are_exported_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ortsep.base.errors import OutputError
    from ortsep.commands import serve
    from ortsep.server.settings import Settings

    def export_first(reference: str, progress: str, quiet: bool) -> None:
        raise OutputError(f"would export {reference}")

    monkeypatch.setattr(serve, "export_first", export_first)
    with pytest.raises(OutputError, match="would export umxhq"):
        serve.serve_command(Settings(data=tmp_path, port=0, models=("umxhq",)), as_json=True, quiet=True)
