#include "tiles.h"

#include <string.h>

extern const subquad_level subquad_level_baseline;

#ifdef SUBQUAD_HAVE_X86_64_V3
extern const subquad_level subquad_level_x86_64_v3;

static int runs_x86_64_v3(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#endif

const subquad_level *subquad_select(const char *name) {
    const int any = name == NULL || name[0] == '\0';
#ifdef SUBQUAD_HAVE_X86_64_V3
    if ((any || strcmp(name, subquad_level_x86_64_v3.name) == 0) && runs_x86_64_v3())
        return &subquad_level_x86_64_v3;
#endif
    if (any || strcmp(name, subquad_level_baseline.name) == 0)
        return &subquad_level_baseline;
    return NULL;
}
