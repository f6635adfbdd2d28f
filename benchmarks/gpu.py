"""What training, unlearning and evaluation reach on a GPU: ``python benchmarks/gpu.py [SECTION ...] [--cifar ZIP]``.

Sections, each under two minutes or so on an H200, printed as markdown tables:

  train     images/s of one trial, with and without each thing that makes it fast, and FLOP utilisation
  usual     the usual way: a DataLoader with per-image transforms, float32
  packed    images/s summed over several trials on the GPU, a process each
  retrain   100 epochs on 45,000 images
  evaluate  one pass over training and test images, and the metrics of every trial
  accuracy  bf16 against float32 on the same seeds
  waits     how often an epoch waits for the GPU

Needs `mu` and what it imports alone. Without ``--cifar`` the images are made up, of the same size and number. With
``--device cpu --images 600 --model small_cnn`` everything runs, slowly, to see that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import mu.training
from mu.data import Dataset, DataSpec, Examples, Part, load
from mu.data.augment import policy
from mu.device import peak_memory, place, prepare, watch_memory
from mu.evaluate import outputs, score
from mu.launch import set_launch
from mu.models import build, resolve
from mu.models.precision import at_precision
from mu.rng import generator
from mu.training import Hyperparameters, fit

PEAKS = {
    "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "L4": 121e12,
}  # fmt: skip
"""Dense bf16 FLOP/s, by a part of the GPU's name; of the H100 the SXM form."""
BATCH = 128


@dataclass(frozen=True)
class Setup:
    """One way to train."""

    precision: str = "bf16"
    launch: str = "graph"
    channels_last: bool = True
    fused: bool = True
    augment: str = "crop_flip"
    batch: int = BATCH


def main() -> None:
    sections: dict[str, Callable[[argparse.Namespace], None]] = {
        "train": train, "usual": usual, "packed": packed, "retrain": retrain,
        "evaluate": evaluate, "accuracy": accuracy, "waits": waits,
    }  # fmt: skip
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--cifar", help="CIFAR-10 as image folders or .zip")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs of `train`")
    parser.add_argument("--long", type=int, default=100, help="epochs of `retrain`")
    parser.add_argument("--short", type=int, default=12, help="epochs of `accuracy`")
    parser.add_argument("--seeds", type=int, default=3, help="of `accuracy`")
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=8.0, help="timed seconds of `packed`")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument(
        "--mps", action="store_true", help="`packed` under a private CUDA MPS server"
    )
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = sorted(set(options.sections) - set(sections))
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; there are {', '.join(sections)}")
    if options.device == "cuda":
        if not torch.cuda.is_available():
            parser.error("there is no GPU; --device cpu tries the script")
        prepare(os.cpu_count() or 1, 1)
    if options.worker:
        worker(options, *options.worker)
        return
    print(
        f"{time.strftime('%Y-%m-%d')}, {device_name(options)}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}; {options.model}, "
        f"{'CIFAR-10' if options.cifar else 'made-up images'}, batches of {BATCH}"
    )
    for name in options.sections or sections:
        began = time.perf_counter()
        print(f"\n### {name}\n", flush=True)
        sections[name](options)
        print(f"\n({time.perf_counter() - began:.0f} s)", flush=True)


def train(options: argparse.Namespace) -> None:
    data = data_of(options)
    best = Setup()
    ways = {
        "everything, steps recorded (`graph`)": best,
        "compiled and recorded (`compile`)": replace(best, launch="compile"),
        "kernel by kernel (`eager`)": replace(best, launch="eager"),
        "float32 (convolutions TF32)": replace(best, precision="float32"),
        "not channels_last": replace(best, channels_last=False),
        "optimizer not fused": replace(best, fused=False),
        "no augmentation": replace(best, augment="none"),
        "with cutout": replace(best, augment="crop_flip_cutout"),
        "none of these: float32, eager, not channels_last, not fused": Setup(
            "float32", "eager", False, False
        ),
        "batches of 512": replace(best, batch=512),
    }
    flops = flops_of(options, data)
    print(
        f"{flops / 1e9:.2f} GFLOP an image, forward and backward\n\n"
        "| way | images/s | ms a step | FLOP utilisation | first epoch, s | device memory, GiB |\n"
        "|---|---|---|---|---|---|"
    )
    for name, setup in ways.items():
        rate, first, memory = throughput(options, data, setup)
        print(
            f"| {name} | {rate:,.0f} | {1e3 * setup.batch / rate:.2f} | {utilisation(options, rate * flops)} | "
            f"{first:.1f} | {memory:.2f} |",
            flush=True,
        )


def throughput(
    options: argparse.Namespace, data: Dataset, setup: Setup
) -> tuple[float, float, float]:
    """Images/s after the first epoch, seconds of the first, GiB held."""
    watch_memory(options.device)
    examples = data.parts["train"].examples(options.device)
    with using(setup):
        epochs = training(options, data, examples, setup, options.epochs + 1)
        began = clock(options)
        next(epochs)
        first = clock(options) - began
        began = clock(options)
        for _ in epochs:
            pass
        seconds = clock(options) - began
    return options.epochs * len(examples) / seconds, first, peak_memory(options.device)


def usual(options: argparse.Namespace) -> None:
    from torch.utils.data import DataLoader

    from mu.vision import datasets

    datasets()  # torchvision can be imported after this
    from torchvision import transforms as T

    data = data_of(options)
    mean, std = data.channel_stats
    part = data.parts["train"]
    steps = [
        T.RandomCrop(32, padding=4),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(mean, std),
    ]
    loader = DataLoader(
        Images(part, T.Compose(steps)),  # type: ignore[arg-type]
        batch_size=BATCH,
        shuffle=True,
        num_workers=options.workers,
        pin_memory=options.device == "cuda",
        drop_last=True,
        persistent_workers=options.workers > 0,
    )
    print("| way | images/s |\n|---|---|")
    for precision in ("float32", "bf16"):
        model = network(options, data, precision, 0)[-1].to(options.device)
        stepper = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        for _ in range(2):  # the first starts the workers
            began = clock(options)
            for inputs, labels in loader:
                inputs = inputs.to(options.device, non_blocking=True)
                labels = labels.to(options.device, non_blocking=True)
                stepper.zero_grad()
                with torch.autocast(options.device, torch.bfloat16, enabled=precision == "bf16"):
                    loss = F.cross_entropy(model(inputs), labels)
                loss.backward()
                stepper.step()
                loss.item()  # for the running mean of the progress bar
            seconds = clock(options) - began
        print(
            f"| DataLoader, {options.workers} workers, {precision} | {BATCH * len(loader) / seconds:,.0f} |",
            flush=True,
        )


def packed(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, mps(options.mps, Path(name)):
        folder = Path(name)
        if options.cifar:
            data_of(options)  # into the cache, once for all
        print(
            "| trials at once | launch | images/s in all | images/s of one | device memory of one, GiB |\n"
            "|---|---|---|---|---|"
        )
        for launch in ("graph", "eager"):
            for count in options.packs:
                rates = run_workers(options, folder, launch, count)
                total = sum(one["rate"] for one in rates)
                memory = max(one["memory"] for one in rates)
                print(
                    f"| {count} | {launch} | {total:,.0f} | {total / count:,.0f} | {memory:.2f} |",
                    flush=True,
                )


def run_workers(
    options: argparse.Namespace, folder: Path, launch: str, count: int
) -> list[dict[str, float]]:
    """Train in several processes, which begin to count together when all are warm."""
    for file in folder.glob("*.json"):
        file.unlink()
    command = [sys.executable, __file__, "--device", options.device, "--model", options.model]
    command += ["--images", str(options.images), "--seconds", str(options.seconds)]
    command += ["--cifar", options.cifar] if options.cifar else []
    processes = [
        subprocess.Popen([*command, "--worker", launch, str(folder / f"{i}.json")])
        for i in range(count)
    ]
    try:
        while len(list(folder.glob("*.warm"))) < count:
            time.sleep(0.05)
            if any(process.poll() for process in processes):
                raise SystemExit("a worker ended before it began; its error is above")
        (folder / "start").touch()
        if any(process.wait() for process in processes):
            raise SystemExit("a worker failed; its error is above")
    finally:
        for process in processes:
            process.kill()
        for file in (*folder.glob("*.warm"), folder / "start"):
            file.unlink(missing_ok=True)
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(count)]


def worker(options: argparse.Namespace, launch: str, name: str) -> None:
    """Train until the time is up, and count the images of the whole time."""
    path, setup = Path(name), Setup(launch=launch)
    torch.set_num_threads(1)
    data = data_of(options)
    # Short epochs, so that the count stops near the end of the time.
    part = data.parts["train"].examples(options.device)
    few = part.rows(torch.arange(min(len(part), 40 * BATCH), device=part.device))
    with using(setup):
        epochs = training(options, data, few, setup, 10**6)
        next(epochs)
        next(epochs)
        clock(options)
        path.with_suffix(".warm").touch()
        while not (path.parent / "start").exists():
            time.sleep(0.01)
        began, images = time.perf_counter(), 0
        while clock(options) - began < options.seconds:
            next(epochs)
            images += len(few)
        rate = images / (clock(options) - began)
    path.write_text(json.dumps({"rate": rate, "memory": peak_memory(options.device)}))


@contextlib.contextmanager
def mps(wanted: bool, folder: Path) -> Iterator[None]:
    """A CUDA MPS server of one's own, under which kernels of several processes run at the same time."""
    if not wanted:
        yield
        return
    for name in ("PIPE", "LOG"):
        (folder / name).mkdir()
        os.environ[f"CUDA_MPS_{name}_DIRECTORY"] = str(folder / name)
    subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
    try:
        yield
    finally:
        subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", check=False)


def retrain(options: argparse.Namespace) -> None:
    data, setup = data_of(options), Setup()
    part = data.parts["train"].examples(options.device)
    retained = part.rows(torch.arange(int(0.9 * len(part)), device=part.device))
    began = clock(options)
    model = trained(options, data, retained, setup, options.long, 0)
    seconds = clock(options) - began
    print(
        f"| epochs | images | seconds | images/s | test accuracy, % |\n|---|---|---|---|---|\n"
        f"| {options.long} | {len(retained)} | {seconds:.1f} | {options.long * len(retained) / seconds:,.0f} | "
        f"{100 * right(options, data, model):.2f} |"
    )


def evaluate(options: argparse.Namespace) -> None:
    data = data_of(options)
    print("| precision | pass over all, s | images/s | metrics of a trial, s |\n|---|---|---|---|")
    for precision in ("bf16", "float32"):
        model = place(network(options, data, precision, 0), options.device)
        sets = [data.parts[name].examples(options.device) for name in ("train", "test")]
        for _ in range(2):  # the first searches for kernels
            began = clock(options)
            found = [outputs(model, part) for part in sets]
            seconds = clock(options) - began
        forgotten = np.arange(len(sets[0])) % 10 == 0
        began = time.perf_counter()
        score(found[0].part(~forgotten), found[0].part(forgotten), found[1])
        arithmetic = time.perf_counter() - began
        images = sum(map(len, sets))
        print(f"| {precision} | {seconds:.3f} | {images / seconds:,.0f} | {arithmetic:.2f} |")


def accuracy(options: argparse.Namespace) -> None:
    data = data_of(options)
    examples = data.parts["train"].examples(options.device)
    print("| precision | test accuracy of each seed, % | mean ± std |\n|---|---|---|")
    means, stds = [], []
    for precision in ("bf16", "float32"):
        setup = replace(Setup(), precision=precision)
        found = [
            100 * right(options, data, trained(options, data, examples, setup, options.short, seed))
            for seed in range(options.seeds)
        ]
        means.append(np.mean(found))
        stds.append(np.std(found, ddof=1) if len(found) > 1 else 0.0)
        each = ", ".join(f"{value:.2f}" for value in found)
        print(f"| {precision} | {each} | {means[-1]:.2f} ± {stds[-1]:.2f} |", flush=True)
    noise = float(np.hypot(*stds) / np.sqrt(options.seeds))
    print(f"\nbf16 - float32 = {means[0] - means[1]:+.2f} points; standard error {noise:.2f}")


def waits(options: argparse.Namespace) -> None:
    if options.device != "cuda":
        print("needs a GPU")
        return
    data = data_of(options)
    examples = data.parts["train"].examples(options.device)
    print("| launch | waits in an epoch |\n|---|---|")
    for launch in ("eager", "graph"):
        setup = Setup(launch=launch)
        with using(setup):
            epochs = training(options, data, examples, setup, 2)
            next(epochs)
            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                next(epochs)
            torch.cuda.set_sync_debug_mode("default")
        found = [str(w.message) for w in caught if "synchroniz" in str(w.message)]
        print(f"| {launch} | {len(found)} |")


def training(
    options: argparse.Namespace, data: Dataset, examples: Examples, setup: Setup, epochs: int, seed: int = 0
) -> Iterator[None]:  # fmt: skip
    """The epochs of a fresh network by a setup; under ``using``."""
    return fit(
        ready(options, data, setup, seed),
        examples,
        generator("gpu", seed),
        Hyperparameters(epochs, setup.batch, 0.1, weight_decay=5e-4, schedule="onecycle"),
        augment=policy(setup.augment),
    )


def trained(
    options: argparse.Namespace, data: Dataset, examples: Examples, setup: Setup, epochs: int, seed: int
) -> nn.Module:  # fmt: skip
    """A fresh network after some epochs by a setup."""
    model = ready(options, data, setup, seed)
    with using(setup):
        for _ in fit(
            model,
            examples,
            generator("gpu", seed),
            Hyperparameters(epochs, setup.batch, 0.1, weight_decay=5e-4, schedule="onecycle"),
            augment=policy(setup.augment),
        ):
            pass
    return model


def ready(options: argparse.Namespace, data: Dataset, setup: Setup, seed: int) -> nn.Module:
    model = network(options, data, setup.precision, seed)
    return place(model, options.device) if setup.channels_last else model.to(options.device)


def network(options: argparse.Namespace, data: Dataset, precision: str, seed: int) -> Any:
    mean, std = data.channel_stats
    model = build(resolve(options.model), data.input_shape, len(data.classes), mean, std, seed)
    return at_precision(model, precision)


@contextlib.contextmanager
def using(setup: Setup) -> Iterator[None]:
    """Launch steps, and make optimizers, as a setup says."""
    make = mu.training.make_optimizer

    def plain(
        model: nn.Module, name: str, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(
            model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay, foreach=False
        )

    set_launch(setup.launch)
    if not setup.fused:
        mu.training.make_optimizer = plain
    try:
        yield
    finally:
        mu.training.make_optimizer = make
        set_launch("eager")


def right(options: argparse.Namespace, data: Dataset, model: nn.Module) -> float:
    """Share of the test images that a model gets right."""
    found = outputs(model, data.parts["test"].examples(options.device))
    return float((found.logits.argmax(1) == found.labels).mean())


def flops_of(options: argparse.Namespace, data: Dataset) -> float:
    """Floating point operations for an image in training: those of convolutions and matrix products, forward and back."""
    model = network(options, data, "float32", 0)
    inputs = torch.rand(8, *data.input_shape)
    with FlopCounterMode(display=False) as counter:
        model(inputs).sum().backward()
    return counter.get_total_flops() / len(inputs)


def utilisation(options: argparse.Namespace, rate: float) -> str:
    """Share of the GPU's peak in bf16 that a rate in FLOP/s is."""
    name = device_name(options)
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    return "?" if peak is None else f"{100 * rate / peak:.1f} %"


def device_name(options: argparse.Namespace) -> str:
    if options.device == "cuda":
        return f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda}), {os.cpu_count()} CPU cores"
    return f"CPU only, {os.cpu_count()} cores"


def clock(options: argparse.Namespace) -> float:
    """The time when the device has done all that was asked of it."""
    if options.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def data_of(options: argparse.Namespace) -> Dataset:
    """CIFAR-10 from images without a validation set to speak of, or images of noise with a class's stripes."""
    if options.cifar:
        subset = None if options.images >= 50_000 else options.images
        return load(DataSpec("image_folder", root=options.cifar, subset=subset, val=0.001))
    rng, parts = np.random.default_rng(0), {}
    for name, count in (
        ("train", options.images),
        ("val", 100),
        ("twin", 0),
        ("test", options.images // 5),
    ):
        labels = rng.integers(0, 10, count)
        stripes = np.arange(32)[None, :] // (labels[:, None] % 5 + 1) % 2 * 40
        rows = stripes[:, None, :, None].repeat(32, 3)
        images = np.where((labels < 5)[:, None, None, None], rows, rows.swapaxes(2, 3))
        noise = rng.integers(0, 200, (count, 3, 32, 32), np.uint8)
        parts[name] = Part((images + noise).astype(np.uint8), labels, labels)
    return Dataset("made up", parts, tuple(map(str, range(10))))


class Images:
    """As torchvision's CIFAR10: arrays in memory, an image and its transforms at each access."""

    def __init__(self, part: Part, transform: Callable[[Any], Tensor]):
        self.inputs = np.ascontiguousarray(part.inputs.transpose(0, 2, 3, 1))
        self.labels, self.transform = part.labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.inputs[index])), int(self.labels[index])


if __name__ == "__main__":
    main()
