"""What a study's problems are made of, as its file writes it: data, a network, its training, and forget requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from mu.data import LOADERS, DataSpec
from mu.data.augment import POLICIES
from mu.forget import KINDS, ForgetRequest
from mu.models import ModelSpec
from mu.models.architectures import MODELS
from mu.models.network import STEMS
from mu.models.precision import PRECISIONS
from mu.training import OPTIMIZERS, SCHEDULES, Recipe
from sweeps.study.schema import FromFile, OneOf, word

NETWORKS = {"anyOf": [{"enum": [*MODELS]}, {"type": "string", "pattern": ":"}]}
WEIGHTS = "File of pretrained weights to begin with."
NORMALIZE = (
    "Mean and standard deviation of each channel, in [0, 1], as part of the network; by default of the training "
    "images. Not for tokens."
)
PRECISION = (
    "`bf16` runs the forward passes of training, unlearning and evaluation in bf16, with float32 weights and logits; "
    "every trial and reference of a study alike. It is the default where trials have GPUs."
)
COUNT = (
    "Number of samples to forget: of the class for `class_subset`; for `hardest` and `worst_case`."
)

Data = Annotated[
    DataSpec, FromFile(named=True, name=[OneOf(LOADERS), Field(description="The data set.")])
]
Network = Annotated[
    ModelSpec,
    FromFile(
        named=True,
        name=[WithJsonSchema(NETWORKS), Field(description="The network, or `module:function`.")],
        stem=[OneOf(STEMS), Field(description="Form of networks that have both; else `small`.")],
        weights=[Field(description=WEIGHTS)],
        normalize=[Field(description=NORMALIZE)],
    ),
]
Training = Annotated[
    Recipe,
    FromFile(
        optimizer=[OneOf(OPTIMIZERS)],
        schedule=[OneOf(SCHEDULES)],
        augment=[OneOf(POLICIES)],
        precision=[OneOf(PRECISIONS), Field(description=PRECISION)],
    ),
]
Target = BeforeValidator(word, json_schema_input_type=str | float | None)
Request = Annotated[
    ForgetRequest,
    FromFile(
        kind=[OneOf(KINDS)],
        target=[Target, Field(alias="class")],
        count=[Field(description=COUNT)],
    ),
]
