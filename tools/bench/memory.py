"""The most memory that this process has held, for the benchmarks."""


def peak_kilobytes() -> int:
    """VmHWM (Linux). `ru_maxrss` would begin with the parent's, for a process that a larger one started."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
