"""``ortsep serve``: separations over HTTP, and a page. The only room that knows a web framework (extra ``serve``)."""
