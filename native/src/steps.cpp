#define CUTAWAY_TABLE steps_portable
#include "steps.inl"
