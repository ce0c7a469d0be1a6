"""What is measured of training from files: every way yields the batches that are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_images
from benchmarks.image_loading import plant

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_there_is_one_line_and_exit_code_two(capsys):
    assert gpu_images.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "needs a CUDA GPU" in err


def test_every_way_yields_batches_of_other_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPBENCH_WORKERS", "0")
    plant(tmp_path / "usual", 6)
    gpu_images.resize(tmp_path / "usual", tmp_path / "resized")
    ways = gpu_images.ways_of(tmp_path, 32, 4, CPU)
    assert len(ways) >= 3
    for name, way in ways.items():
        batches = list(way(3))
        assert [(tuple(batch.shape), batch.dtype) for batch in batches] == [
            ((4, 3, 32, 32), torch.uint8)
        ] * 3, name
        assert torch.equal(batches[0], batches[1]) == (name == "inputs on the GPU"), name


def test_a_table_compares_every_way_with_the_bound(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("GAPBENCH_WORKERS", "0")
    words = ["--device", "cpu", "--model", "ResNet-20", "--mode", "eager", "--batch", "2"]
    sizes = ["--steps", "1", "--rounds", "1", "--files", "2"]
    assert gpu_images.main([*words, *sizes, "--page", str(tmp_path / "page.md")]) == 0
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert lines[2].startswith("| inputs on the GPU | ") and lines[2].endswith(" | 1.00 |")
    assert lines[3].startswith("| gapbench | ")
    assert "\n".join(lines) in capsys.readouterr().out
