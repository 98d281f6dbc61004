// What the library shows to others: functions of the C interface are declared CTW_API, all else stays hidden.
#pragma once

#if defined(_WIN32)
#define CTW_API __declspec(dllexport)
#else
#define CTW_API __attribute__((visibility("default")))
#endif
