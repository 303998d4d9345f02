"""Devices and memory as the statistics report them."""

import dataclasses
import os

import jax
import numpy as np

from sdvar_jax.runtime.memory import describe_devices, peak_host_memory, peak_memory


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    device_kind: str = "Fast 9000"
    platform: str = "gpu"
    stats: object = None

    def memory_stats(self):
        if isinstance(self.stats, Exception):
            raise self.stats
        return self.stats


def test_devices_of_one_kind_are_counted_together():
    assert describe_devices([FakeDevice()]) == "Fast 9000 (gpu)"
    assert describe_devices([FakeDevice(), FakeDevice()]) == "2 x Fast 9000 (gpu)"
    mixed = [FakeDevice(), FakeDevice("Slow 1", "tpu"), FakeDevice()]
    assert describe_devices(mixed) == "2 x Fast 9000 (gpu), Slow 1 (tpu)"


def test_a_cpu_is_described_by_its_cores():
    cores = os.cpu_count()
    assert describe_devices(jax.devices("cpu")[:1]) == f"CPU ({cores} cores)"
    assert describe_devices(jax.devices("cpu")[:2]) == f"CPU ({cores} cores, 2 virtual devices)"


def test_peak_memory_is_told_a_device_and_none_where_unknown():
    devices = [
        FakeDevice(stats={"peak_bytes_in_use": 123, "bytes_in_use": 5}),
        FakeDevice(stats=None),
        FakeDevice(stats={}),
        FakeDevice(stats=jax.errors.JaxRuntimeError("UNIMPLEMENTED")),
    ]
    assert peak_memory(devices) == (123, None, None, None)


def test_every_local_device_is_asked_by_default():
    assert len(peak_memory()) == jax.local_device_count()


def test_host_memory_is_told_in_bytes():
    held = np.ones(2**26, np.uint8)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert held.nbytes < peak_host_memory() < installed
