#define CUTAWAY_TABLE steps_neon
#include "steps.inl"
