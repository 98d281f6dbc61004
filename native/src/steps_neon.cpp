#define CUTAWAY_TABLE steps_neon
#include "steps.inc"
