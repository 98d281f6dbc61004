#define CUTAWAY_TABLE steps_avx2
#include "steps.inl"
