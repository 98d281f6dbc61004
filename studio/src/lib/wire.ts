// Answers as the server packs them (cutaway/interp/pictures/wire.py), and frames (cutaway/serve/studio/frames.py).

const arrays = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u1: Uint8Array } as const;
export type Numbers = Float32Array | Float64Array | Int32Array | Uint8Array;

/** Numbers with their shape. `numbers` is null of a tensor too large to be sent: ask for a tile of it. */
export class Tensor {
  constructor(
    readonly shape: readonly number[],
    readonly numbers: Numbers | null,
  ) {}

  /** The numbers of the last dimensions at some index of the first ones; shares their memory. */
  at(...index: number[]): Tensor {
    const shape = this.shape.slice(index.length);
    const size = shape.reduce((a, b) => a * b, 1);
    let start = 0;
    for (const [d, i] of index.entries()) start = start * this.shape[d]! + i;
    return new Tensor(shape, this.numbers && this.numbers.subarray(start * size, (start + 1) * size));
  }

  /** One number; NaN where it was not sent. */
  get(...index: number[]): number {
    return this.at(...index).numbers?.[0] ?? NaN;
  }

  rows(): number[][] {
    const [rows = 0, columns = 0] = this.shape;
    return Array.from({ length: rows }, (_, i) => [...(this.numbers?.subarray(i * columns, (i + 1) * columns) ?? [])]);
  }
}

/** A shape of the API's schema, as it is once it was unpacked. */
export type Unpacked<T> = T extends { $tensor: unknown }
  ? Tensor
  : T extends readonly (infer U)[]
    ? T extends [unknown, ...unknown[]]
      ? { [K in keyof T]: Unpacked<T[K]> }
      : Unpacked<U>[]
    : T extends object
      ? { [K in keyof T]: Unpacked<T[K]> }
      : T;

type Head = { dtype: keyof typeof arrays; shape: number[]; at: number | null };

export function unpack<T>(bytes: ArrayBuffer): T {
  const size = new DataView(bytes).getUint32(0, true);
  const behind = 4 + size + ((8 - ((4 + size) % 8)) % 8);
  return JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)), (_, value) => {
    const head: Head | undefined = value?.$tensor;
    if (!head) return value;
    if (head.at === null) return new Tensor(head.shape, null);
    const count = head.shape.reduce((a, b) => a * b, 1);
    return new Tensor(head.shape, new arrays[head.dtype](bytes, behind + head.at, count));
  }) as T;
}

export type Frame = { kind: string; body: ArrayBuffer };

/** The frames of an answer, as they come. */
export async function* frames(stream: ReadableStream<Uint8Array>): AsyncGenerator<Frame> {
  const reader = stream.getReader();
  let parts: Uint8Array[] = [];
  let held = 0;
  const merged = () => {
    if (parts.length > 1) {
      const all = new Uint8Array(held);
      let at = 0;
      for (const part of parts) {
        all.set(part, at);
        at += part.length;
      }
      parts = [all];
    }
    return parts[0]!;
  };
  for (;;) {
    while (held >= 5) {
      const all = merged();
      const size = new DataView(all.buffer, all.byteOffset).getUint32(1, true);
      if (held < 5 + size) break;
      yield { kind: String.fromCharCode(all[0]!), body: all.slice(5, 5 + size).buffer };
      parts = [all.subarray(5 + size)];
      held -= 5 + size;
    }
    const { done, value } = await reader.read();
    if (done) return;
    parts.push(value);
    held += value.length;
  }
}
