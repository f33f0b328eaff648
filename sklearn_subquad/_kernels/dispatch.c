#include "tiles.h"

#include <string.h>

extern const subquad_level subquad_level_baseline;
#ifdef SUBQUAD_HAVE_X86_64
extern const subquad_level subquad_level_x86_64_v3, subquad_level_x86_64_v4;
#endif

/* Best first. */
static const subquad_level *const levels[] = {
#ifdef SUBQUAD_HAVE_X86_64
    &subquad_level_x86_64_v4,
    &subquad_level_x86_64_v3,
#endif
    &subquad_level_baseline,
};
#define N_LEVELS ((int)(sizeof levels / sizeof *levels))

/* The features that the level's compiler flags assume; the tests include the operating system's share. */
static int runs(const subquad_level *level) {
#ifdef SUBQUAD_HAVE_X86_64
    __builtin_cpu_init();
    const int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (level == &subquad_level_x86_64_v3)
        return v3;
    if (level == &subquad_level_x86_64_v4)
        return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
#endif
    return level == &subquad_level_baseline;
}

const subquad_level *subquad_select(const char *name) {
    const int any = name == NULL || name[0] == '\0';
    for (int i = 0; i < N_LEVELS; i++)
        if ((any || strcmp(name, levels[i]->name) == 0) && runs(levels[i]))
            return levels[i];
    return NULL;
}

const char *subquad_level_name(int index) {
    for (int i = 0; i < N_LEVELS; i++)
        if (runs(levels[i]) && index-- == 0)
            return levels[i]->name;
    return NULL;
}
