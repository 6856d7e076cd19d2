// Runs graphs in onnxruntime-web's wasm: node web_run.mjs FOLDER_OF_NODE_MODULES CASES.json
// CASES: [{model, feeds: {name: {file, dims}}, out}], tensors as raw float32; each output goes to `out`.NAME.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const ort = createRequire(`${process.argv[2]}/`)("onnxruntime-web");
ort.env.wasm.numThreads = 1;
for (const { model, feeds, out } of JSON.parse(readFileSync(process.argv[3]))) {
  const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
  const given = {};
  for (const [name, { file, dims }] of Object.entries(feeds))
    given[name] = new ort.Tensor("float32", new Float32Array(new Uint8Array(readFileSync(file)).buffer), dims);
  for (const [name, { data }] of Object.entries(await session.run(given)))
    writeFileSync(`${out}.${name}`, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  await session.release();
}
