"""What accelerators can do, by their vendors' data sheets (docs/guide/scaling.md names them)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as JAX counts them.

    Attributes:
      kinds: how `device.device_kind` begins, hyphens as spaces.
      flops: dense bf16 peak, FLOP/s.
      memory: device memory, bytes.
      bandwidth: to that memory, bytes/s.
      link: what a device sends at most over one link of its slice's network (TPUs), or to all others of its
        machine together, bytes/s.
      between: its share of what leaves the slice or machine, bytes/s.
    """

    kinds: tuple[str, ...]
    flops: float
    memory: float
    bandwidth: float
    link: float
    between: float


# A TPU has two links on each axis of its slice's network, which has two axes (v5e, v6e) or three (v4, v5p);
# the data sheets have the sum of all, in both directions.
CHIPS = {
    "v4": Chip(("TPU v4",), 275e12, 32 * 2**30, 1.2e12, 600e9 / 3 / 4, 3.1e9),
    "v5e": Chip(("TPU v5 lite",), 197e12, 16 * 2**30, 819e9, 400e9 / 2 / 4, 6.4e12 / 8 / 256),
    "v5p": Chip(("TPU v5p", "TPU v5"), 459e12, 95 * 2**30, 2.765e12, 1200e9 / 3 / 4, 50e9 / 8),
    "v6e": Chip(("TPU v6 lite",), 918e12, 32 * 2**30, 1.6e12, 800e9 / 2 / 4, 25.6e12 / 8 / 256),
    "a100": Chip(("NVIDIA A100",), 312e12, 80e9, 2.039e12, 300e9, 25e9),
    "h100": Chip(("NVIDIA H100 80GB HBM3",), 989e12, 80e9, 3.35e12, 450e9, 50e9),
    "h100pcie": Chip(("NVIDIA H100 PCIe",), 756e12, 80e9, 2e12, 64e9, 25e9),
    "h200": Chip(("NVIDIA H200",), 989e12, 141e9, 4.8e12, 450e9, 50e9),
    "l4": Chip(("NVIDIA L4",), 121e12, 24e9, 300e9, 32e9, 12.5e9),
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that a device is, or None for one that is not in the table."""
    words = f"{device_kind} ".replace("-", " ")
    fitting = [(kind, chip) for chip in CHIPS.values() for kind in chip.kinds if words.startswith(f"{kind} ")]
    return max(fitting, key=lambda found: len(found[0]))[1] if fitting else None
