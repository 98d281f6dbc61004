// Attention over paged keys and values (Kwon et al. 2023), computed range by range with an online softmax (Milakov &
// Gimelshein 2018): within a range of 128 tokens the scores of a row are exponentiated against their own maximum, and
// the ranges' results are merged in their order. A row's numbers come from the same operations in the same order
// however rows are put into blocks and ranges are shared among threads.
//
// Shapes: D head dim, P its next multiple of 16. "Queries" are rows times the heads of a group.

namespace cutaway {
namespace {

#if defined(__AVX512F__)
constexpr int kBlockRows = 6, kScoreTiles = 4, kValueParts = 4;  // 24 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int kBlockRows = 3, kScoreTiles = 2, kValueParts = 2;  // 12 of 16
#else
constexpr int kBlockRows = 4, kScoreTiles = 1, kValueParts = 1;
#endif

constexpr int kPagesOfRange = kRange / kPage, kTilesOfPage = kPage / kTile;
constexpr float kInfinite = std::numeric_limits<float>::infinity(), kNever = -kInfinite;

// Asks for memory that is read next: pages lie apart, so that the processor cannot guess where a context goes on.
template <int N, typename T>
CTW_INLINE void fetch(const T* ahead) {
    for (size_t line = 0; line < N * kLanes * sizeof(T); line += 64)
        prefetch(reinterpret_cast<const char*>(ahead) + line);
}

// Scores of R queries and N tiles of 16 tokens: keys are [N][D][16]. ahead: as many numbers that are read next, or
// nullptr.
template <int R, int N, typename T>
void score_tiles(const float* const* queries, const T* keys, const T* ahead, int head_dim, float* scores) {
    Lanes sums[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) sums[r][n] = all(0.0f);
    for (int d = 0; d < head_dim; ++d) {
        if (ahead != nullptr) fetch<N>(ahead + d * N * kLanes);
        Lanes key[N];
        for (int n = 0; n < N; ++n) key[n] = load(keys + (n * head_dim + d) * kTile);
        for (int r = 0; r < R; ++r) {
            const Lanes query = all(queries[r][d]);
            for (int n = 0; n < N; ++n) sums[r][n] = fma(query, key[n], sums[r][n]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(scores + r * kRange + n * kTile, sums[r][n]);
}

template <int R, typename T>
void score(const float* const* queries, const T* keys, const T* ahead, int tiles, int head_dim, float* scores) {
    int n = 0;
    const auto some = [&](auto count) {
        constexpr int N = decltype(count)::value;
        const int at = n * head_dim * kTile;
        score_tiles<R, N>(queries, keys + at, ahead == nullptr ? nullptr : ahead + at, head_dim, scores + n * kTile);
        n += N;
    };
    while (n + kScoreTiles <= tiles) some(std::integral_constant<int, kScoreTiles>());
    while (n < tiles) some(std::integral_constant<int, 1>());
}

// Adds to R sums of N * 16 channels the values of some tokens, weighted: values are [tokens][padded].
template <int R, int N, typename T>
void weigh_parts(const float* weights, const T* values, const T* ahead, int tokens, int padded, float* sums) {
    Lanes total[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) total[r][n] = load(static_cast<const float*>(sums + r * (padded + 2) + n * kLanes));
    for (int t = 0; t < tokens; ++t) {
        if (ahead != nullptr) fetch<N>(ahead + t * N * kLanes);
        Lanes value[N];
        for (int n = 0; n < N; ++n) value[n] = load(values + t * padded + n * kLanes);
        for (int r = 0; r < R; ++r) {
            const Lanes weight = all(weights[r * kRange + t]);
            for (int n = 0; n < N; ++n) total[r][n] = fma(weight, value[n], total[r][n]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(sums + r * (padded + 2) + n * kLanes, total[r][n]);
}

template <int R, typename T>
void weigh(const float* weights, const T* values, const T* ahead, int tokens, int padded, float* sums) {
    int at = 0;
    const auto some = [&](auto count) {
        constexpr int N = decltype(count)::value;
        weigh_parts<R, N>(weights, values + at, ahead == nullptr ? nullptr : ahead + at * kPage, tokens, padded,
                          sums + at);
        at += N * kLanes;
    };
    while (at + kValueParts * kLanes <= padded) some(std::integral_constant<int, kValueParts>());
    while (at < padded) some(std::integral_constant<int, 1>());
}

// What is known of one query: the weighted sum of values [P], then the sum of weights, then the score they are relative
// to. Takes in what another range found.
void merge_into(float* total, const float* found, int padded) {
    const float most = total[padded + 1], other = found[padded + 1];
    if (other == kNever) return;
    if (most == kNever) {
        std::memcpy(total, found, sizeof(float) * static_cast<size_t>(padded + 2));
        return;
    }
    const float next = most < other ? other : most;
    float factors[kLanes] = {most - next, other - next};
    store(factors, exponential(load(static_cast<const float*>(factors))));
    const Lanes keep = all(factors[0]), take = all(factors[1]);
    for (int i = 0; i < padded; i += kLanes)
        store(total + i, fma(load(found + i), take, load(static_cast<const float*>(total + i)) * keep));
    total[padded] = total[padded] * factors[0] + found[padded] * factors[1];
    total[padded + 1] = next;
}

void finish(const float* total, int head_dim, int padded, float* z) {
    const float by = 1.0f / total[padded];
    for (int d = 0; d < head_dim; ++d) z[d] = total[d] * by;
}

// The keys and values of one range, page by page, either as they are stored or as float32.
struct Range {
    const void* keys[kPagesOfRange];
    const void* values[kPagesOfRange];
    const void* next[kPagesOfRange];         // keys that are read after these values; nullptr: none
    const float* key_scales[kPagesOfRange];  // nullptr: none
    const float* value_scales[kPagesOfRange];
    int64_t start;  // its first token
    int tokens;     // that are held
    bool stored;    // as they are in memory, read for the first time
};

template <typename T>
void widen(const Range& stored, const BlockLayout& layout, float* keys, float* values, Range& made) {
    made = stored;
    made.stored = false;
    for (int page = 0; page * kPage < stored.tokens; ++page) {
        const int tokens = stored.tokens - page * kPage < kPage ? stored.tokens - page * kPage : kPage;
        const int tiles = (tokens + kTile - 1) / kTile;
        float *k = keys + page * kPage * layout.head_dim, *v = values + page * kPage * layout.padded;
        const T *from_k = static_cast<const T*>(stored.keys[page]),
                *from_v = static_cast<const T*>(stored.values[page]);
        for (int i = 0; i < tiles * kTile * layout.head_dim; i += kLanes) store(k + i, load(from_k + i));
        for (int i = 0; i < tokens * layout.padded; i += kLanes) store(v + i, load(from_v + i));
        made.keys[page] = k;
        made.values[page] = v;
    }
}

// Which of a range's tokens a query sees.
struct Seen {
    int low, high;
};

// Scores to weights, in place; returns their maximum and sum.
void soften(const AttendPiece& piece, const Range& range, Seen seen, int tiles, float* scores, float* tap, float& most,
            float& sum_of_weights) {
    float places[kLanes];
    for (int i = 0; i < kLanes; ++i) places[i] = static_cast<float>(i);
    const Lanes place = load(static_cast<const float*>(places)), never = all(kNever), scale = all(piece.scale);
    Lanes high = never;
    for (int n = 0; n < tiles; ++n) {
        Lanes s = load(static_cast<const float*>(scores + n * kTile)) * scale;
        if (const float* by = range.key_scales[n / kTilesOfPage]) s = s * load(by + n % kTilesOfPage * kTile);
        if (piece.cap > 0.0f) s = hyperbolic_tangent(s / all(piece.cap)) * all(piece.cap);
        const int first = n * kTile;
        if (first + kTile > seen.high) s = if_less(place, all(static_cast<float>(seen.high - first)), s, never);
        if (first < seen.low) s = if_less(place, all(static_cast<float>(seen.low - first)), never, s);
        store(scores + n * kTile, s);
        high = if_less(s, high, high, s);  // a NaN stays
    }
    if (tap != nullptr)
        for (int t = seen.low; t < seen.high; ++t) tap[range.start + t] = scores[t];
    most = largest(high);
    const Lanes top = all(most);
    Lanes total = all(0.0f);
    for (int n = 0; n < tiles; ++n) {
        Lanes weight = exponential(load(static_cast<const float*>(scores + n * kTile)) - top);
        total = total + weight;
        if (const float* by = range.value_scales[n / kTilesOfPage])
            weight = weight * load(by + n % kTilesOfPage * kTile);
        store(scores + n * kTile, weight);
    }
    sum_of_weights = sum(total);
}

// R queries over one range: found is [R][P + 2].
template <int R, typename T>
void attend_range(const AttendPiece& piece, const Range& range, const float* const* queries, const Seen* seen,
                  float* const* taps, float* scores, float* found) {
    const int head_dim = piece.layout->head_dim, padded = piece.layout->padded;
    int high = 0;
    for (int r = 0; r < R; ++r) high = seen[r].high > high ? seen[r].high : high;
    const int tiles = (high + kTile - 1) / kTile;
    for (int page = 0; page * kPage < high; ++page) {
        const int left = tiles - page * kTilesOfPage;
        const T* ahead = range.stored ? static_cast<const T*>(range.values[page]) : nullptr;
        score<R>(queries, static_cast<const T*>(range.keys[page]), ahead, left < kTilesOfPage ? left : kTilesOfPage,
                 head_dim, scores + page * kPage);
    }
    for (int r = 0; r < R; ++r) {
        float* own = found + r * (padded + 2);
        std::memset(own, 0, sizeof(float) * static_cast<size_t>(padded));
        if (seen[r].high <= seen[r].low) {
            std::memset(scores + r * kRange, 0, sizeof(float) * static_cast<size_t>(tiles * kTile));
            own[padded] = 0.0f;
            own[padded + 1] = kNever;
        } else {
            soften(piece, range, seen[r], tiles, scores + r * kRange, taps[r], own[padded + 1], own[padded]);
        }
    }
    for (int page = 0; page * kPage < high; ++page) {
        const int left = high - page * kPage;
        weigh<R>(scores + page * kPage, static_cast<const T*>(range.values[page]),
                 range.stored ? static_cast<const T*>(range.next[page]) : nullptr, left < kPage ? left : kPage, padded,
                 found);
    }
}

template <int R, typename T>
void attend_up_to(int count, const AttendPiece& piece, const Range& range, const float* const* queries,
                  const Seen* seen, float* const* taps, float* scores, float* found) {
    if (count == R) {
        attend_range<R, T>(piece, range, queries, seen, taps, scores, found);
    } else if constexpr (R > 1) {
        attend_up_to<R - 1, T>(count, piece, range, queries, seen, taps, scores, found);
    }
}

Range range_of(const AttendPiece& piece, int64_t number) {
    const BlockLayout& layout = *piece.layout;
    Range range{};
    range.start = number * kRange;
    const int64_t end = piece.position + piece.rows;
    range.tokens = static_cast<int>(end - range.start < kRange ? end - range.start : kRange);
    range.stored = true;
    for (int page = 0; page * kPage < range.tokens; ++page) {
        const uint8_t* const* blocks = piece.blocks + number * kPagesOfRange + page;
        const uint8_t* block = *blocks;
        const bool more = number + 1 < piece.last_range && range.start + kRange + page * kPage < end;
        if (more) range.next[page] = blocks[kPagesOfRange];
        range.keys[page] = block;
        range.values[page] = block + layout.values_at;
        if (layout.kind == Cache::int8) {
            range.key_scales[page] = reinterpret_cast<const float*>(block + layout.scales_at);
            range.value_scales[page] = range.key_scales[page] + kPage;
        }
    }
    return range;
}

// Asks for the keys of a piece's first range at once.
void fetch_keys(const Range& range, const BlockLayout& layout) {
    for (int page = 0; page * kPage < range.tokens; ++page)
        for (size_t line = 0; line < layout.values_at; line += 64)
            prefetch(static_cast<const char*>(range.keys[page]) + line);
}

int within(int64_t token) { return static_cast<int>(token < 0 ? 0 : token > kRange ? kRange : token); }

Seen seen_of(const AttendPiece& piece, int64_t start, int row) {
    const int64_t end = piece.position + row + 1 - start;
    return {piece.window > 0 ? within(end - piece.window) : 0, within(end)};
}

void attend(const AttendPiece& piece) {
    const BlockLayout& layout = *piece.layout;
    const int padded = layout.padded, each = padded + 2, count = piece.rows * piece.group;
    float* scores = piece.scratch;
    float* found = scores + kBlockRows * kRange;
    float* totals = found + kBlockRows * each;
    float* keys = totals + count * each;
    float* values = keys + kRange * layout.head_dim;
    for (int j = 0; j < count; ++j) totals[j * each + padded + 1] = kNever;
    const bool wide = layout.kind != Cache::float32 && count > 2 * kBlockRows;  // worth making float32 of them once

    for (int64_t number = piece.first_range; number < piece.last_range; ++number) {
        const int64_t start = number * kRange;
        if (start >= piece.position + piece.rows) break;
        const bool behind = piece.window > 0 && start + kRange <= piece.position + 1 - piece.window;
        if (behind && piece.partial == nullptr) continue;
        Range range{};
        if (!behind) {
            range = range_of(piece, number);
            if (number == piece.first_range) fetch_keys(range, layout);
            if (wide && layout.kind == Cache::float16)
                widen<uint16_t>(range_of(piece, number), layout, keys, values, range);
            if (wide && layout.kind == Cache::int8) widen<int8_t>(range_of(piece, number), layout, keys, values, range);
        }
        for (int first = 0; first < count; first += kBlockRows) {
            const int some = count - first < kBlockRows ? count - first : kBlockRows;
            if (first > 0) range.stored = false;  // what was read once is near
            const float* queries[kBlockRows];
            float* taps[kBlockRows];
            Seen seen[kBlockRows];
            bool any = false;
            for (int j = 0; j < some; ++j) {
                const int row = (first + j) / piece.group, head = (first + j) % piece.group;
                queries[j] = piece.queries + row * piece.query_stride + head * layout.head_dim;
                taps[j] = piece.scores == nullptr ? nullptr
                                                  : piece.scores + head * piece.scores_head + row * piece.scores_row;
                seen[j] = seen_of(piece, start, row);
                any = any || seen[j].low < seen[j].high;
            }
            if (!any || behind) {
                for (int j = 0; j < some; ++j) found[j * each + padded + 1] = kNever;
            } else if (wide || layout.kind == Cache::float32) {
                attend_up_to<kBlockRows, float>(some, piece, range, queries, seen, taps, scores, found);
            } else if (layout.kind == Cache::float16) {
                attend_up_to<kBlockRows, uint16_t>(some, piece, range, queries, seen, taps, scores, found);
            } else {
                attend_up_to<kBlockRows, int8_t>(some, piece, range, queries, seen, taps, scores, found);
            }
            for (int j = 0; j < some; ++j) {
                const int row = (first + j) / piece.group, head = (first + j) % piece.group;
                if (piece.partial != nullptr)
                    std::memcpy(piece.partial + row * piece.partial_row + head * piece.partial_head + number * each,
                                found + j * each, sizeof(float) * static_cast<size_t>(each));
                else
                    merge_into(totals + (first + j) * each, found + j * each, padded);
            }
        }
    }
    if (piece.partial != nullptr) return;
    for (int j = 0; j < count; ++j)
        finish(totals + j * each, layout.head_dim, padded,
               piece.out + j / piece.group * piece.out_stride + j % piece.group * layout.head_dim);
}

void merge(const float* partial, int64_t ranges, int head_dim, int padded, float* total, float* z) {
    total[padded + 1] = kNever;
    for (int64_t r = 0; r < ranges; ++r) merge_into(total, partial + r * (padded + 2), padded);
    finish(total, head_dim, padded, z);
}

// Key and value of one token into its slot of a page.
void store_token(const BlockLayout& layout, uint8_t* block, int slot, const float* key, const float* value) {
    const int D = layout.head_dim, P = layout.padded;
    const size_t key_at = static_cast<size_t>(slot / kTile * D) * kTile + static_cast<size_t>(slot % kTile);
    const size_t value_at = static_cast<size_t>(slot) * static_cast<size_t>(P);
    if (layout.kind == Cache::float32) {
        float* keys = reinterpret_cast<float*>(block) + key_at;
        float* values = reinterpret_cast<float*>(block + layout.values_at) + value_at;
        for (int d = 0; d < D; ++d) keys[d * kTile] = key[d];
        for (int d = 0; d < P; ++d) values[d] = d < D ? value[d] : 0.0f;
    } else if (layout.kind == Cache::float16) {
        uint16_t* keys = reinterpret_cast<uint16_t*>(block) + key_at;
        uint16_t* values = reinterpret_cast<uint16_t*>(block + layout.values_at) + value_at;
        for (int d = 0; d < P; d += kLanes) {
            const int left = D - d < kLanes ? D - d : kLanes;
            uint16_t halves[kLanes];
            store(halves, left < kLanes ? load_some(key + d, left) : load(key + d));
            for (int i = 0; i < left; ++i) keys[(d + i) * kTile] = halves[i];
            store(values + d, left < kLanes ? load_some(value + d, left) : load(value + d));
        }
    } else {
        int8_t* keys = reinterpret_cast<int8_t*>(block) + key_at;
        int8_t* values = reinterpret_cast<int8_t*>(block + layout.values_at) + value_at;
        float* scales = reinterpret_cast<float*>(block + layout.scales_at);
        const float* both[2] = {key, value};
        for (int which = 0; which < 2; ++which) {
            float size = 0.0f;
            for (int d = 0; d < D; ++d) {
                const float x = std::fabs(both[which][d]);
                size = x <= size ? size : x;  // a NaN makes the scale NaN
            }
            scales[which * kPage + slot] = size / 127.0f;
            const float by = size > 0.0f && size < kInfinite ? 127.0f / size : 0.0f;
            for (int d = 0; d < D; ++d) {
                const int8_t level = static_cast<int8_t>(std::lrintf(by > 0.0f ? both[which][d] * by : 0.0f));
                if (which == 0)
                    keys[d * kTile] = level;
                else
                    values[d] = level;
            }
        }
        for (int d = D; d < P; ++d) values[d] = 0;
    }
}

}  // namespace
}  // namespace cutaway
