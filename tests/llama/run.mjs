// Runs a GGUF file in llama.cpp on the CPU with float32 caches. Reads a request as JSON from stdin, prints the answer.
//
// request: { model, greedy: [ids], count, texts: [text], scored: [ids] }
// answer:  { tokens: ids of each text, greedy: the `count` ids after `greedy`, gaps: how far the logit of each is above
//            the next, loss: mean cross-entropy of scored[1:] }
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";

const require = createRequire(process.argv[2] + "/");
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const request = JSON.parse(readFileSync(0, "utf8"));
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: request.model });
const length = Math.max((request.greedy?.length ?? 0) + (request.count ?? 0), request.scored?.length ?? 0) + 8;
const context = await model.createContext({
  contextSize: length,
  threads: 1, // its threads spin: with a busy core each step of two waits for a time slice
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
});
const sequence = context.getSequence();
const answer = { tokens: (request.texts ?? []).map((text) => [...model.tokenize(text)]), greedy: [], gaps: [] };

// Without these llama.cpp would cut the distribution.
const next = { generateNext: { logits: true, options: { temperature: 1, topK: 0, topP: 1, minP: 0 } } };

let unread = request.greedy ?? [];
for (let i = 0; i < (request.count ?? 0); i++) {
  const items = unread.map((id, at) => (at + 1 < unread.length ? id : [id, next]));
  const out = await sequence.controlledEvaluate(items);
  const [[first, high], [, low]] = out[out.length - 1].next.logits.entries();
  answer.greedy.push(first);
  answer.gaps.push(high - low);
  unread = [first];
}
if (request.scored) {
  await sequence.clearHistory();
  const ids = request.scored;
  const out = await sequence.controlledEvaluate(ids.slice(0, -1).map((id) => [id, next]));
  const losses = out.map((one, at) => {
    const logits = [...one.next.logits.values()];
    const high = logits.reduce((most, logit) => Math.max(most, logit));
    const sum = logits.reduce((sum, logit) => sum + Math.exp(logit - high), 0);
    return high + Math.log(sum) - one.next.logits.get(ids[at + 1]);
  });
  answer.loss = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}
process.stdout.write(JSON.stringify(answer), () => process.exit(0));
