"""Benchmarks by topic in the conventions of airspeed velocity (asv); see asv.conf.json."""
