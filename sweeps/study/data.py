"""What a study's problems are made of: data, a model, training and forget requests."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import to_jsonable_python

from mu.data import LOADERS, DataSpec
from mu.data.augment import POLICIES
from mu.forget import KINDS, ForgetRequest
from mu.models import ModelSpec
from mu.models.architectures import MODELS
from mu.models.network import STEMS
from mu.models.precision import PRECISIONS
from mu.training import OPTIMIZERS, SCHEDULES, Recipe
from sweeps.study.schema import FromFile, OneOf, word

Data = Annotated[
    DataSpec, FromFile(named=True, name=[OneOf(LOADERS), Field(description="The data set.")])
]
Network = Annotated[
    ModelSpec,
    FromFile(
        named=True,
        name=[
            WithJsonSchema({"anyOf": [{"enum": [*MODELS]}, {"type": "string", "pattern": ":"}]}),
            Field(description="The network, or `module:function` of one's own."),
        ],
        stem=[
            OneOf(STEMS),
            Field(description="Form of networks that have both; `small` when left out."),
        ],
        weights=[Field(description="File of pretrained weights to begin with.")],
        normalize=[
            Field(
                description="What each channel is shifted and scaled by, in [0, 1]; part of the network, and by "
                "default of the training images. Not for tokens."
            )
        ],
    ),
]
Training = Annotated[
    Recipe,
    FromFile(
        optimizer=[OneOf(OPTIMIZERS)],
        schedule=[OneOf(SCHEDULES)],
        augment=[OneOf(POLICIES)],
        precision=[
            OneOf(PRECISIONS),
            Field(
                description="`bf16` runs the forward passes of training, unlearning and evaluation in bf16, with "
                "float32 weights and logits; every trial and reference of a study alike. The default is `bf16` where "
                "trials have GPUs."
            ),
        ],
    ),
]
Request = Annotated[
    ForgetRequest,
    FromFile(
        kind=[OneOf(KINDS)],
        target=[
            BeforeValidator(word, json_schema_input_type=str | float | None),
            Field(alias="class"),
        ],
        count=[
            Field(
                description="Number of samples to forget: of the class for `class_subset`; for `hardest` and `worst_case`."
            )
        ],
    ),
]


def plain_data(spec: DataSpec) -> dict[str, Any]:
    """Return the data as a study file writes it."""
    return {key: item for key, item in to_jsonable_python(spec).items() if item not in (None, [])}


def plain_model(spec: ModelSpec) -> str | dict[str, Any]:
    """Return the model as a study file writes it."""
    given = {key: item for key, item in to_jsonable_python(spec).items() if item is not None}
    return given if len(given) > 1 else spec.name


def plain_request(request: ForgetRequest) -> dict[str, Any]:
    """Return a forget request as a study file writes it."""
    given = to_jsonable_python(request)
    given = {"class" if key == "target" else key: item for key, item in given.items()}
    return {key: item for key, item in given.items() if item is not None}
