import { describe, expect, it } from "vitest";
import { frames, Tensor, unpack } from "../src/lib/wire";

/** Packed as cutaway/interp/pictures/wire.py does. */
function packed(head: unknown, ...parts: ArrayBufferView[]): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(head));
  const start = Math.ceil((4 + text.length) / 8) * 8;
  const bytes = new Uint8Array(start + parts.reduce((sum, part) => sum + Math.ceil(part.byteLength / 8) * 8, 0)).fill(
    32,
  );
  new DataView(bytes.buffer).setUint32(0, text.length, true);
  bytes.set(text, 4);
  let at = start;
  for (const part of parts) {
    bytes.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), at);
    at += Math.ceil(part.byteLength / 8) * 8;
  }
  return bytes.buffer;
}

const tensor = (dtype: string, shape: number[], at: number | null) => ({ $tensor: { dtype, shape, at } });

describe("unpack", () => {
  it("reads tensors of every kind from behind the head", () => {
    const found = unpack<{ 名: string; a: Tensor; b: Tensor[] }>(
      packed(
        {
          名: "é",
          a: tensor("f4", [2, 3], 0),
          b: [tensor("i4", [3], 24), tensor("f8", [1], 40), tensor("u1", [3], 48)],
        },
        new Float32Array([1, 2, 3, 4, 5, 6]),
        new Int32Array([7, -8, 9]),
        new Float64Array([0.1]),
        new Uint8Array([1, 0, 1]),
      ),
    );
    expect(found.名).toBe("é");
    expect(found.a.rows()).toEqual([[1, 2, 3], [4, 5, 6]]); // prettier-ignore
    expect(found.a.get(1, 2)).toBe(6);
    expect(found.b.map((one) => [...one.numbers!])).toEqual([[7, -8, 9], [0.1], [1, 0, 1]]);
  });

  it("keeps the shape of a tensor that was not sent", () => {
    const found = unpack<Tensor>(packed(tensor("f4", [30, 9, 1000, 1000], null)));
    expect(found.shape).toEqual([30, 9, 1000, 1000]);
    expect(found.numbers).toBeNull();
    expect(found.get(0, 0, 0, 0)).toBeNaN();
  });
});

describe("frames", () => {
  const frame = (kind: string, body: string) => {
    const text = new TextEncoder().encode(body);
    const made = new Uint8Array(5 + text.length);
    made[0] = kind.charCodeAt(0);
    new DataView(made.buffer).setUint32(1, text.length, true);
    made.set(text, 5);
    return made;
  };
  const all = [frame("p", '{"done":1}'), frame("d", "…"), frame("r", "")];
  const whole = new Uint8Array(all.flatMap((one) => [...one]));

  it.each([1, 2, 7, 1000])("come out whole when they arrive in pieces of %i bytes", async (size) => {
    const stream = new ReadableStream<Uint8Array>({
      start(control) {
        for (let at = 0; at < whole.length; at += size) control.enqueue(whole.slice(at, at + size));
        control.close();
      },
    });
    const found = [];
    for await (const { kind, body } of frames(stream)) found.push([kind, new TextDecoder().decode(body)]);
    expect(found).toEqual([["p", '{"done":1}'], ["d", "…"], ["r", ""]]); // prettier-ignore
  });
});
