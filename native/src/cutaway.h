// The plain C interface to steps: a runner holds a plan, pages of keys and values, and threads; a call computes the new
// tokens of many sequences. Matrices come from matrix_c.h and stay the caller's, as do all numbers that are pointed to.
//
// Functions that can fail return 0; or 1, or 2 where memory is missing, with a sentence in `error` (of `size` bytes). One call at a time for a runner.
#pragma once

#include <stdint.h>

#include "export.h"

extern "C" {

enum { CTW_VERSION = 1 };

// Operations of a plan. "Rowwise" ones compute each row from itself; the others are computed by all threads together.
enum {
    CTW_EMBED = 0,     // out: the rows of the matrix that the ids name, times scale; plus the table's rows by position
    CTW_NORM = 1,      // out: norm of in; choice: 0 root mean square, 1 layer norm; weight, bias, eps
    CTW_ADD = 2,       // out: in + second (-1: nothing) + bias
    CTW_ACTIVATE = 3,  // out: choice(in from in_at), times second from second_at
    CTW_HEADS = 4,    // out: in (q, k, v) + bias, q and k normed (choice: 0 no, 1 each head, 2 all together) and turned
    CTW_STORE = 5,    // keys and values of in into the pages of a layer
    CTW_ATTEND = 6,   // out: what the queries of in mix of a layer's values; tap: scores; all together
    CTW_PRODUCT = 7,  // out: in times each matrix, beside each other; all together
    CTW_TAP = 8,      // gives `width` numbers of in, from in_at on, to whoever asked
    CTW_WANTED = 9,   // out: in of the wanted rows alone; so are all rows from here on
    CTW_LOGITS = 10,  // in times the matrix into the step's logits, capped, and looked at; all together
    CTW_EXPERTS = 11,  // out: what the experts that each row of in chose make of it; all together
    CTW_OPS = 12
};

typedef struct {
    int32_t kind, layer, choice, tap;  // tap: a number of the caller's, -1: none
    int32_t in, second, out, table;    // buffers, and a table; -1: none
    int32_t in_at, second_at, width, first_matrix, matrices;
    int32_t window, used, reserved;  // of experts: how many each row uses
    float scale, eps, cap, sum_to_one;
    const float *weight, *bias;
} ctw_op;

typedef struct {
    int64_t width;    // float32 numbers of a row
    int64_t product;  // 1: written by operations that all threads compute together, 0: by rowwise ones
} ctw_buffer;

typedef struct {
    int32_t threads, rounding, cache, layers;  // rounding: 8 or 16; cache: 0 float32, 1 float16, 2 int8
    int32_t heads, kv_heads, head_dim, turned;
    int64_t vocabulary;
    int64_t buffers, ops, matrices, tables, taps;
    const ctw_buffer* buffer;
    const ctw_op* op;
    const void* const* matrix;
} ctw_plan;

typedef struct {
    int32_t tap, sequence;
    float* out;  // (rows, width) of the sequence's rows, or of its wanted ones; scores: (H, rows, tokens held), hidden
                 // ones are left as they are
} ctw_tap;

typedef struct {
    int64_t rows, sequences, wanted, taps;
    const int32_t* ids;   // (rows)
    const int32_t* span;  // (sequences, 4): rows, tokens held before, first page in `pages`, pages
    const int32_t* pages;
    const int32_t* row;  // (wanted) rows, ascending
    const ctw_tap* tap;  // (taps)
    float* logits;       // (wanted, V)
    int64_t* best;       // (wanted)
    float* log_sum;      // (wanted)
} ctw_batch;

// Low-rank parts beside one matrix of a plan, used by a product or for the logits: a row's out becomes factor * out +
// (a x) b. They are few, and stay the caller's.
typedef struct {
    int32_t matrix, rank;
    const float* a;       // (rank, C)
    const float* b;       // (rank, N), with all that it is multiplied by
    const float* factor;  // (N); 0: one
} ctw_part;

CTW_API int32_t ctw_version(void);  // of these structures and operations; Python's must be the same
CTW_API void* ctw_runner(const ctw_plan* plan, char* error, int64_t size);
CTW_API void ctw_end(void* runner);
CTW_API int64_t ctw_page_tokens(void);
CTW_API int64_t ctw_page_bytes(const void* runner);
CTW_API int32_t ctw_table(void* runner, int32_t table, const float* numbers, int64_t rows, int64_t width, char* error,
                          int64_t size);  // of positions: learned ones, or cosines then signed sines
CTW_API int32_t ctw_reserve(void* runner, int64_t pages, char* error, int64_t size);
CTW_API int32_t ctw_copy(void* runner, int64_t source, int64_t target, char* error, int64_t size);
CTW_API int32_t ctw_step(void* runner, const ctw_batch* batch, char* error, int64_t size);
// The parts of an adapter with a number above zero, in place of what the number had before; none: it is forgotten.
CTW_API int32_t ctw_adapter(void* runner, int32_t number, const ctw_part* part, int64_t parts, char* error,
                            int64_t size);
// A step, with the number of each sequence's adapter, zero for none. A row's numbers are the same, bit for bit, whatever
// adapters the others have.
CTW_API int32_t ctw_step_adapted(void* runner, const ctw_batch* batch, const int32_t* adapter, char* error,
                                 int64_t size);
// Nanoseconds that the first thread has spent on each kind of operation, waiting for others included; 0 to begin anew.
CTW_API void ctw_times(void* runner, int64_t* nanoseconds, int32_t measure);
}
