"""``musweep export`` and ``musweep unlearn``: commands that end with a model."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from rich.console import Console

from sweeps.commands.common import DONE, INTERRUPTED, add_storage, path
from sweeps.study import yaml_file


def add(commands: Any) -> None:
    """Add the commands that end with a model."""
    _add_export(commands)
    _add_unlearn(commands)


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="write a model that a study kept to a file")
    export.add_argument("folder", type=path, metavar="STUDY_DIR")
    export.add_argument("--forget", required=True, metavar="REQUEST", help="forget request")
    export.add_argument("--method", required=True, help="method, as the study calls it")
    export.add_argument("--seed", type=int, help="report seed (the first that has finished)")
    _add_out(export)
    add_storage(export)
    export.set_defaults(command=_export)


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out", required=True, type=path, metavar="FILE.pt",
        help="where the state dict goes; its card goes beside it, as FILE.json",
    )  # fmt: skip


def _add_unlearn(commands: Any) -> None:
    unlearn = commands.add_parser(
        "unlearn", help="run one method on a model of your own, without a study"
    )
    add = unlearn.add_argument
    add("--model", required=True, help="network, module:function, or a mapping as in a study")
    add("--weights", required=True, type=path, help="state dict of the original model")
    add("--data", required=True, help="data set, folder of images, mapping or study file")
    add("--root", help="where the files of the data set are")
    add("--forget-indices", required=True, type=path, metavar="FILE.npy",
        help="positions of the samples to forget among all training samples")  # fmt: skip
    add("--method", required=True, help="one of musweep methods")
    add("--knobs", default="defaults", metavar="KNOBS",
        help="defaults, a YAML file, or tuned:STUDY_DIR[:REQUEST] (defaults)")  # fmt: skip
    _add_out(unlearn)
    add("--seed", type=int, default=0, help="of all that is drawn (0)")
    add("--augment", help="augmentation that the model was trained with, such as crop_flip")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--methods-path", type=path, help="folder with methods of your own")
    add("--code-path", type=path, help="folder with modules of your own models")
    unlearn.set_defaults(command=_unlearn)


def _export(options: argparse.Namespace) -> int:
    from sweeps.unlearned import export

    study = export.read_study(options.folder)
    asked = (options.forget, options.method, options.seed)
    unlearned = export.find_kept(study, *asked, options.storage)
    card = export.export(unlearned, options.folder, options.out)
    name = f"{card['method']} on {card['forget']['name']}, seed {card['seed']}"
    print(f"{options.out}: {name}, sha256 {card['file']['sha256'][:12]}; its card is beside it")
    return DONE


def _unlearn(options: argparse.Namespace) -> int:
    from sweeps import launch
    from sweeps.unlearned import task as unlearn_task
    from sweeps.unlearned import unlearn

    launch.import_from(options.code_path)
    yaml_file.method_folders(options.methods_path)
    names = [each.name for each in dataclasses.fields(unlearn_task.Asked)]
    task = unlearn_task.task_of(
        unlearn_task.Asked(**{name: getattr(options, name) for name in names})
    )
    launch.stop_on_sigterm()
    try:
        unlearn.run(task, Console())
    except KeyboardInterrupt:
        print("musweep: stopped; the same command goes on behind the last epoch that was saved",
              file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    return DONE
