// The functions of step_kernels.h for one instruction set: a file for each set includes this one and names its table.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "step_kernels.h"
#include "lanes.h"

#include "attention.inl"
#include "rowwise.inl"

namespace cutaway {

extern const StepKernels CUTAWAY_TABLE;
const StepKernels CUTAWAY_TABLE = {norm,   add,   scale,  activate, heads,     store_token,
                                   attend, merge, choose, softmax,  add_scaled, add_thin};

}  // namespace cutaway
