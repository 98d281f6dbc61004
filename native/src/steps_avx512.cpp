#define CUTAWAY_TABLE steps_avx512
#include "steps.inl"
