// Writing through the server's OpenAI-compatible API, and the tokens of what was written.
import { json } from "../../lib/api";
import type { components } from "../../lib/schema";

type Schemas = components["schemas"];
export type Message = { role: "user" | "assistant"; content: string };
/** What was written, the text that the model had read, and the tokens of both together. */
export type Written = { text: string; ended: boolean; read: string; tokens: string[]; ids: number[]; from: number };

/** Tokens of a prompt and its continuation. */
async function tokensOf(model: string, read: string, text: string, signal?: AbortSignal) {
  const ask = (prompt: string) =>
    json<Schemas["Tokenized"]>("/tokenize", { model, prompt, return_token_strs: true }, signal);
  const [before, whole] = await Promise.all([read ? ask(read) : null, ask(read + text)]);
  return { tokens: whole.token_strs ?? [], ids: whole.tokens, from: Math.min(before?.count ?? 1, whole.count) };
}

export async function complete(
  model: string,
  prompt: string,
  temperature: number,
  most: number,
  signal?: AbortSignal,
): Promise<Written> {
  const body = { model, prompt, temperature, max_tokens: most };
  const made = await json<Schemas["Completion"]>("/v1/completions", body, signal);
  const { text, finish_reason } = made.choices[0]!;
  return { text, ended: finish_reason === "length", read: prompt, ...(await tokensOf(model, prompt, text, signal)) };
}

export async function chat(
  model: string,
  messages: Message[],
  temperature: number,
  most: number,
  signal?: AbortSignal,
): Promise<Written> {
  const body = { model, messages, temperature, max_completion_tokens: most };
  const made = await json<Schemas["ChatCompletion"]>("/v1/chat/completions", body, signal);
  const { message, finish_reason } = made.choices[0]!;
  const asked = await json<Schemas["Tokenized"]>("/tokenize", { model, messages, add_generation_prompt: true }, signal);
  const { prompt: read } = await json<Schemas["Detokenized"]>("/detokenize", { model, tokens: asked.tokens }, signal);
  const text = message.content ?? "";
  return { text, ended: finish_reason === "length", read, ...(await tokensOf(model, read, text, signal)) };
}
