// Vectors of AVX2, for the files of the two sets that have them; CUTAWAY_VNNI where they have dot products of bytes too.

struct Lanes {
    using Int = __m256i;
    using Float = __m256;
    static constexpr int lanes = 8, most_rows = 4;
#if defined(CUTAWAY_VNNI)
    static constexpr int abreast = 2;
    static constexpr bool wide_is_signed = false;
#else
    static constexpr int abreast = 1;
    static constexpr bool wide_is_signed = true;  // sums of two products of full bytes do not fit 16 bits
#endif

    static Int load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
    static Int keep(Int v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(mask))); }
    template <int by>
    static Int right(Int v) { return _mm256_srli_epi16(v, by); }
    template <int by>
    static Int left(Int v) { return _mm256_slli_epi16(v, by); }
    static Int merge(Int v, Int high, int mask) { return _mm256_or_si256(v, keep(high, mask)); }
    static Int flip(Int v) { return _mm256_xor_si256(v, _mm256_set1_epi8(static_cast<char>(0x80))); }
    static Int book(const uint8_t* codes) {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    }
    static Int look_up(Int book, Int v) { return _mm256_shuffle_epi8(book, v); }
    template <int shift>
    static Int start(const int32_t* minus) {
        if constexpr (shift == 0) return _mm256_setzero_si256();
        return _mm256_slli_epi32(_mm256_set1_epi32(*minus), shift);
    }
    template <int shift>
    static Int start_rest(const int32_t* minus, const int32_t* half) {
        if constexpr (shift == 0) return _mm256_setzero_si256();
        return _mm256_slli_epi32(_mm256_set1_epi32(*minus - *half), shift);
    }
    template <bool is_signed>
    static Int dot(Int sum, Int v, const int8_t* q) {
        int32_t four;
        std::memcpy(&four, q, 4);
        const Int numbers = _mm256_set1_epi32(four);
#if defined(CUTAWAY_VNNI)
        return _mm256_dpbusd_avx_epi32(sum, v, numbers);
#else
        const Int pairs = is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(numbers, v))
                                    : _mm256_maddubs_epi16(v, numbers);
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
    }
    static Float zero() { return _mm256_setzero_ps(); }
    static Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
    static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static Float negate(Float a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
    static Float splat(const float* from) { return _mm256_broadcast_ss(from); }
    static Float whole(const int32_t* minus, const int32_t* without) {
        return _mm256_set1_ps(static_cast<float>((without ? *without : 0) - *minus));
    }
    static Float halves(const uint8_t* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    static __m128i eight(const uint8_t* from) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)); }
    static Float bytes(const uint8_t* from) { return to_float(_mm256_cvtepu8_epi32(eight(from))); }
    static Float signed_bytes(const uint8_t* from) { return to_float(_mm256_cvtepi8_epi32(eight(from))); }
    static Float low_nibbles(const uint8_t* from) {
        return to_float(_mm256_and_si256(_mm256_cvtepu8_epi32(eight(from)), _mm256_set1_epi32(15)));
    }
    static Float high_nibbles(const uint8_t* from) {
        return to_float(_mm256_srli_epi32(_mm256_cvtepu8_epi32(eight(from)), 4));
    }
    static Float exponents(const uint8_t* from) {  // 2 ** (byte - 128), see exponent_to_float
        const __m256i e = _mm256_cvtepu8_epi32(eight(from)), one = _mm256_set1_epi32(1);
        const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
        const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
        return _mm256_castsi256_ps(_mm256_blendv_epi8(small, normal, _mm256_cmpgt_epi32(e, one)));
    }
    static void store(float* to, Float v, int count, bool add) {
        float all[lanes];
        _mm256_storeu_ps(all, v);
        for (int i = 0; i < (count < lanes ? count : lanes); ++i) to[i] = add ? to[i] + all[i] : all[i];
    }
    static void prefetch(const uint8_t* at) {
        _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
    }
};

struct Wide {
    using Float = __m256;
    static constexpr int width = 8, most_rows = 2;

    static Float zero() { return _mm256_setzero_ps(); }
    static Float load(const uint8_t* from) { return _mm256_loadu_ps(reinterpret_cast<const float*>(from)); }
    static Float load_half(const uint8_t* from) { return Lanes::halves(from); }
    static Float load_brain(const uint8_t* from) {
        const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(sixteen), 16));
    }
    static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static float total(Float v) {
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
};
