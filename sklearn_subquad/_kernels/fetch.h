/* Fetching what is read soon into the second level of cache. */
#ifndef SUBQUAD_FETCH_H
#define SUBQUAD_FETCH_H

#include <stdint.h>

static inline void subquad_fetch(const void *first, const void *end) {
#if defined(__GNUC__)
    for (uintptr_t line = (uintptr_t)first & ~(uintptr_t)63; line < (uintptr_t)end; line += 64)
        __builtin_prefetch((const void *)line, 0, 2);
#else
    (void)first, (void)end;
#endif
}

#endif
