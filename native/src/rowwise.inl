// Norms, activations, rotary positions and the look at logits, each of one row.

namespace cutaway {
namespace {

CTW_INLINE Lanes load_up_to(const float* p, int64_t left, float rest = 0.0f) {
    return left >= kLanes ? load(p) : load_some(p, static_cast<int>(left), rest);
}
CTW_INLINE void store_up_to(float* p, Lanes v, int64_t left) {
    if (left >= kLanes)
        store(p, v);
    else
        store_some(p, v, static_cast<int>(left));
}

// The sum of (x - mean)²; x beyond the width counts as the mean.
float sum_of_squares(const float* x, int64_t width, float mean) {
    const Lanes middle = all(mean);
    Lanes sums[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
    int64_t i = 0;
    for (; i + 4 * kLanes <= width; i += 4 * kLanes)
        for (int j = 0; j < 4; ++j) {
            const Lanes off = load(x + i + j * kLanes) - middle;
            sums[j] = fma(off, off, sums[j]);
        }
    for (; i < width; i += kLanes) {
        const Lanes off = load_up_to(x + i, width - i, mean) - middle;
        sums[0] = fma(off, off, sums[0]);
    }
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void norm(Norm kind, const float* x, const float* weight, const float* bias, float eps, int64_t width, float* out) {
    float mean = 0.0f;
    if (kind == Norm::layer) {
        Lanes total = all(0.0f);
        for (int64_t i = 0; i < width; i += kLanes) total = total + load_up_to(x + i, width - i);
        mean = sum(total) / static_cast<float>(width);
    }
    const float square = sum_of_squares(x, width, mean) / static_cast<float>(width);
    const Lanes by = all(1.0f / std::sqrt(square + eps)), middle = all(mean);
    for (int64_t i = 0; i < width; i += kLanes) {
        const int64_t left = width - i;
        Lanes y = (load_up_to(x + i, left) - middle) * by * load_up_to(weight + i, left);
        if (bias != nullptr) y = y + load_up_to(bias + i, left);
        store_up_to(out + i, y, left);
    }
}

void add(const float* a, const float* b, const float* bias, int64_t width, float* out) {
    for (int64_t i = 0; i < width; i += kLanes) {
        const int64_t left = width - i;
        Lanes y = load_up_to(a + i, left);
        if (b != nullptr) y = y + load_up_to(b + i, left);
        if (bias != nullptr) y = y + load_up_to(bias + i, left);
        store_up_to(out + i, y, left);
    }
}

void add_scaled(const float* x, float by, int64_t width, float* out) {
    for (int64_t i = 0; i < width; i += kLanes) {
        const int64_t left = width - i;
        store_up_to(out + i, fma(load_up_to(x + i, left), all(by), load_up_to(out + i, left)), left);
    }
}

// `several` vectors at once, so that their sums do not wait for themselves.
template <int several>
CTW_INLINE void add_thin_at(const float* thin, int64_t rank, const float* b, int64_t stride, const float* factor,
                            int64_t left, float* out) {
    Lanes sums[several];
    for (int v = 0; v < several; ++v) {
        const int64_t at = v * kLanes;
        sums[v] = load_up_to(out + at, left - at);
        if (factor != nullptr) sums[v] = sums[v] * load_up_to(factor + at, left - at);
    }
    for (int64_t k = 0; k < rank; ++k)
        for (int v = 0; v < several; ++v)
            sums[v] = fma(load_up_to(b + k * stride + v * kLanes, left - v * kLanes), all(thin[k]), sums[v]);
    for (int v = 0; v < several; ++v) store_up_to(out + v * kLanes, sums[v], left - v * kLanes);
}

void add_thin(const float* thin, int64_t rank, const float* b, int64_t stride, const float* factor, int64_t width,
              float* out) {
    constexpr int several = 4;
    int64_t i = 0;
    for (; width - i >= several * kLanes; i += several * kLanes)
        add_thin_at<several>(thin, rank, b + i, stride, factor ? factor + i : nullptr, width - i, out + i);
    for (; i < width; i += kLanes)
        add_thin_at<1>(thin, rank, b + i, stride, factor ? factor + i : nullptr, width - i, out + i);
}

void scale(float* x, float by, int64_t width) {
    for (int64_t i = 0; i < width; ++i) x[i] *= by;
}

template <typename Function>
CTW_INLINE void each(Function f, const float* x, const float* by, int64_t width, float* out) {
    for (int64_t i = 0; i < width; i += kLanes) {
        const int64_t left = width - i;
        Lanes y = f(load_up_to(x + i, left));
        if (by != nullptr) y = y * load_up_to(by + i, left);
        store_up_to(out + i, y, left);
    }
}

void activate(Activation kind, const float* x, const float* by, int64_t width, float* out) {
    switch (kind) {
        case Activation::silu:
            each([](Lanes v) { return v / (all(1.0f) + exponential(all(0.0f) - v)); }, x, by, width, out);
            break;
        case Activation::gelu:
            each([](Lanes v) { return v * all(0.5f) * (all(1.0f) + error_function(v * all(0.70710678118654752f))); }, x,
                 by, width, out);
            break;
        case Activation::gelu_tanh:
            each(
                [](Lanes v) {
                    const Lanes inside = fma(v * v * v, all(0.044715f), v) * all(0.79788456080286536f);
                    return v * all(0.5f) * (all(1.0f) + hyperbolic_tangent(inside));
                },
                x, by, width, out);
            break;
        case Activation::relu:
            each([](Lanes v) { return if_less(v, all(0.0f), all(0.0f), v); }, x, by, width, out);
            break;
        case Activation::relu2:
            each(
                [](Lanes v) {
                    const Lanes positive = if_less(v, all(0.0f), all(0.0f), v);
                    return positive * positive;
                },
                x, by, width, out);
            break;
    }
}

// Pairs of channels, i and i + turned / 2, turned by the angles whose cosines and signed sines are given.
void turn(float* x, const float* cos, const float* sin, int turned) {
    const int half = turned / 2;
    for (int i = 0; i < half; i += kLanes) {
        const int64_t left = half - i;
        const Lanes a = load_up_to(x + i, left), b = load_up_to(x + half + i, left);
        const Lanes c = load_up_to(cos + i, left), d = load_up_to(cos + half + i, left);
        store_up_to(x + i, fma(b, load_up_to(sin + i, left), a * c), left);
        store_up_to(x + half + i, fma(a, load_up_to(sin + half + i, left), b * d), left);
    }
}

void heads(const HeadsShape& shape, const float* x, const float* bias, const float* scales, const float* cos,
           const float* sin, float* out) {
    const int D = shape.head_dim, turned_heads = shape.heads + shape.kv_heads;
    const int64_t width = static_cast<int64_t>(turned_heads + shape.kv_heads) * D;
    add(x, nullptr, bias, width, out);
    if (shape.norm == HeadNorm::joint) {
        const int64_t of_queries = static_cast<int64_t>(shape.heads) * D;
        norm(Norm::rms, out, scales, nullptr, shape.eps, of_queries, out);
        norm(Norm::rms, out + of_queries, scales + of_queries, nullptr, shape.eps,
             static_cast<int64_t>(shape.kv_heads) * D, out + of_queries);
    }
    for (int h = 0; h < turned_heads; ++h) {
        float* head = out + h * D;
        if (shape.norm == HeadNorm::each) norm(Norm::rms, head, scales + h * D, nullptr, shape.eps, D, head);
        if (cos != nullptr) turn(head, cos, sin, shape.turned);
    }
}

Chosen choose(float* logits, int64_t count, float cap) {
    Lanes most = all(kNever), check = all(0.0f);
    for (int64_t i = 0; i < count; i += kLanes) {
        const int64_t left = count - i;
        Lanes x = load_up_to(logits + i, left, kNever);
        if (cap > 0.0f) {
            x = hyperbolic_tangent(x / all(cap)) * all(cap);
            store_up_to(logits + i, x, left);
            if (left < kLanes) x = load_some(logits + i, static_cast<int>(left), kNever);
        }
        most = larger(most, x);
        check = fma(left >= kLanes ? x : load_some(logits + i, static_cast<int>(left)), all(0.0f), check);
    }
    Chosen chosen{largest(most), 0, 0.0, sum(check)};
    while (chosen.best + 1 < count && !(logits[chosen.best] == chosen.most)) ++chosen.best;
    const Lanes top = all(chosen.most);
    for (int64_t first = 0; first < count; first += 1024) {  // float32 adds up few numbers, float64 what came of them
        const int64_t last = first + 1024 < count ? first + 1024 : count;
        Lanes total = all(0.0f);
        for (int64_t i = first; i < last; i += kLanes)
            total = total + exponential(load_up_to(logits + i, last - i, kNever) - top);
        chosen.sum += static_cast<double>(sum(total));
    }
    return chosen;
}

void softmax(float* x, int64_t width) {
    Lanes most = all(kNever);
    for (int64_t i = 0; i < width; i += kLanes) most = larger(most, load_up_to(x + i, width - i, kNever));
    const Lanes top = all(largest(most));
    Lanes total = all(0.0f);
    for (int64_t i = 0; i < width; i += kLanes) {
        const Lanes y = exponential(load_up_to(x + i, width - i, kNever) - top);
        total = total + y;
        store_up_to(x + i, y, width - i);
    }
    scale(x, 1.0f / sum(total), width);
}

}  // namespace
}  // namespace cutaway
