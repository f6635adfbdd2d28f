"""Every data set in its original format, with a few made-up samples: ``make(name, root)``.

Images are noise about a colour of their class, texts draw on a few words of their group, so that a model can learn
them. Files carry the names, layouts, codings and class names of the originals.
"""

from __future__ import annotations

import codecs
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COARSE: dict[str, str] = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
CIFAR100 = sorted(name for names in COARSE.values() for name in names.split())
ATTRIBUTES = [
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
]
GROUPS = [
    "alt.atheism",
    "comp.graphics",
    "comp.os.ms-windows.misc",
    "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware",
    "comp.windows.x",
    "misc.forsale",
    "rec.autos",
    "rec.motorcycles",
    "rec.sport.baseball",
    "rec.sport.hockey",
    "sci.crypt",
    "sci.electronics",
    "sci.med",
    "sci.space",
    "soc.religion.christian",
    "talk.politics.guns",
    "talk.politics.mideast",
    "talk.politics.misc",
    "talk.religion.misc",
]
WORDNET = [f"n{number:08}" for number in range(1443537, 1443537 + 200 * 977, 977)]


def make(name: str, root: Path, train: int | None = None, test: int | None = None) -> None:
    """Write a data set's files below `root`.

    Args:
        train, test: Samples of each class (of CelebA: of each identity); None is a few.
    """
    maker, usual = MAKERS[name]
    root.mkdir(parents=True, exist_ok=True)
    maker(root, train or usual[0], test or usual[1])


def images(labels: NDArray[np.int64], side: tuple[int, int] = (32, 32)) -> NDArray[np.uint8]:
    """Noise about the colour of each label: uint8 [N, H, W, 3]; the same for the same labels."""
    rng = np.random.default_rng([len(labels), *side])
    colours = np.random.default_rng(0).integers(30, 226, (labels.max() + 1, 1, 1, 3))
    noise = rng.normal(0, 20, (len(labels), *side, 3))
    return (colours[labels] + noise).clip(0, 255).astype(np.uint8)


def labels_of(classes: int, each: int) -> NDArray[np.int64]:
    """`each` labels of every class, in a mixed order."""
    return np.random.default_rng([classes, each]).permutation(np.repeat(np.arange(classes), each))


def _pickled(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def _rows(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Images as CIFAR stores them: uint8 [N, 3072], a plane of each colour after the other."""
    return images(labels).transpose(0, 3, 1, 2).reshape(len(labels), -1)


def cifar10(root: Path, train: int, test: int) -> None:
    folder = root / "cifar-10-batches-py"
    labels = labels_of(10, train)
    rows = _rows(labels)
    for number, part in enumerate(np.array_split(np.arange(len(labels)), 5), 1):
        batch = {"data": rows[part], "labels": labels[part].tolist()}
        _pickled(folder / f"data_batch_{number}", batch)
    held_out = labels_of(10, test)
    _pickled(folder / "test_batch", {"data": _rows(held_out), "labels": held_out.tolist()})
    _pickled(folder / "batches.meta", {"label_names": CIFAR10, "num_vis": 3072})


def cifar100(root: Path, train: int, test: int) -> None:
    folder = root / "cifar-100-python"
    coarse = [list(COARSE).index(owner(name)) for name in CIFAR100]
    for name, each in (("train", train), ("test", test)):
        labels = labels_of(100, each)
        batch = {
            "data": _rows(labels),
            "fine_labels": labels.tolist(),
            "coarse_labels": [coarse[label] for label in labels],
        }
        _pickled(folder / name, batch)
    names = {"fine_label_names": CIFAR100, "coarse_label_names": list(COARSE)}
    _pickled(folder / "meta", names)


def owner(name: str) -> str:
    """The superclass of a class of CIFAR-100."""
    return next(coarse for coarse, names in COARSE.items() if name in names.split())


def svhn(root: Path, train: int, test: int) -> None:
    from scipy.io import savemat

    for name, each in (("train", train), ("test", test)):
        labels = labels_of(10, each)
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        content = {"X": images(labels).transpose(1, 2, 3, 0), "y": stored}
        savemat(root / f"{name}_32x32.mat", content)


def _mnist(name: str) -> Callable[[Path, int, int], None]:
    def write(root: Path, train: int, test: int) -> None:
        folder = root / name / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        for part, each in (("train", train), ("t10k", test)):
            labels = labels_of(10, each)
            pixels = images(labels, (28, 28))[..., 0]
            for kind, array in (("images-idx3", pixels), ("labels-idx1", labels.astype(np.uint8))):
                header = bytes([0, 0, 8, array.ndim])
                header += b"".join(size.to_bytes(4, "big") for size in array.shape)
                (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())

    return write


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def tiny_imagenet(root: Path, train: int, test: int) -> None:
    folder = root / "tiny-imagenet-200"
    labels = labels_of(200, train)
    numbers = dict.fromkeys(WORDNET, 0)
    for label, pixels in zip(labels, images(labels, (64, 64))):
        name = WORDNET[label]
        _save(folder / "train" / name / "images" / f"{name}_{numbers[name]}.JPEG", pixels)
        numbers[name] += 1
    for name in WORDNET:
        boxes = "".join(f"{name}_{i}.JPEG\t0\t0\t63\t63\n" for i in range(train))
        (folder / "train" / name / f"{name}_boxes.txt").write_text(boxes)
    held_out = labels_of(200, test)
    lines = []
    for number, (label, pixels) in enumerate(zip(held_out, images(held_out, (64, 64)))):
        _save(folder / "val" / "images" / f"val_{number}.JPEG", pixels)
        lines.append(f"val_{number}.JPEG\t{WORDNET[label]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    _save(folder / "test" / "images" / "test_0.JPEG", np.zeros((64, 64, 3), np.uint8))
    (folder / "wnids.txt").write_text("\n".join(reversed(WORDNET)) + "\n")
    words = "".join(f"{name}\tthing {number}, object\n" for number, name in enumerate(WORDNET))
    (folder / "words.txt").write_text(words)


def celeba(root: Path, train: int, test: int) -> None:
    """60 identities to train on, 5 in `valid`, 12 in `test`; attributes are drawn for every image."""
    folder = root / "celeba"
    people = np.repeat(np.arange(77) + 1, [train] * 60 + [1] * 5 + [test] * 12)
    part = np.where(people <= 60, 0, np.where(people <= 65, 1, 2))
    order = np.random.default_rng(0).permutation(len(people))
    people, part = people[order], part[order]
    names = [f"{number + 1:06}.jpg" for number in range(len(people))]
    bits = np.random.default_rng(1).integers(0, 2, (len(names), len(ATTRIBUTES)))
    smiling = bits[:, ATTRIBUTES.index("Smiling")]
    for name, pixels in zip(names, images(smiling, (218, 178))):
        _save(folder / "img_align_celeba" / name, pixels)
    count = f"{len(names)}\n"

    def table(file: str, header: str, rows: list[str]) -> None:
        lines = "".join(f"{name} {row}\n" for name, row in zip(names, rows))
        (folder / file).write_text(header + lines)

    table("list_eval_partition.txt", "", [str(number) for number in part])
    table("identity_CelebA.txt", "", [str(number) for number in people])
    signs = [" ".join(f"{2 * bit - 1:2}" for bit in row) for row in bits]
    table("list_attr_celeba.txt", count + " ".join(ATTRIBUTES) + " \n", signs)
    table(
        "list_bbox_celeba.txt",
        count + "image_id x_1 y_1 width height\n",
        ["9 9 99 99"] * len(names),
    )
    points = " ".join(
        f"{point}_{axis}" for point in ("lefteye", "righteye", "nose") for axis in "xy"
    )
    points += " leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    marks = ["69 109 106 113 77 142 73 152 108 154"] * len(names)
    table("list_landmarks_align_celeba.txt", count + points + "\n", marks)


def _folders(
    root: Path, parts: dict[str, tuple[list[str], int]], suffix: str, size: int = 32
) -> None:
    """<part>/<class>/<image>, of sizes that differ from image to image where `size` is 0."""
    for part, (names, each) in parts.items():
        labels = np.repeat(np.arange(len(names)), each)
        side = size or 48
        for number, (label, pixels) in enumerate(zip(labels, images(labels, (side, side)))):
            cut = pixels if size else pixels[number % 5 :, number % 3 :]
            _save(root / part / names[label] / f"{number:04}{suffix}", cut)


def image_folder(root: Path, train: int, test: int) -> None:
    _folders(root, {"train": (CIFAR10, train), "test": (CIFAR10, test)}, ".png")


def imagenet(root: Path, train: int, test: int) -> None:
    names = WORDNET[:20]
    _folders(root, {"train": (names, train), "val": (names, test)}, ".JPEG", size=0)


def pins_faces(root: Path, train: int, test: int) -> None:
    people = [f"pins_Person {number:03}" for number in range(105)]
    _folders(root, {"105_classes_pins_dataset": (people, train + test)}, ".jpg", size=0)


def vggface2(root: Path, train: int, test: int) -> None:
    people = [f"n{number:06}" for number in range(2, 14)]
    others = [f"n{number:06}" for number in range(1, 2)]
    _folders(root, {"train": (people, train + test), "test": (others, test)}, ".jpg", size=0)


def newsgroups(root: Path, train: int, test: int) -> None:
    from sklearn.utils import Bunch

    parts = {}
    for part, each in (("train", train), ("test", test)):
        labels = labels_of(20, each)
        rng = np.random.default_rng([each, len(part)])
        texts = []
        for label in labels:
            own = [f"{GROUPS[label].rpartition('.')[2]}{n}" for n in rng.integers(0, 4, 15)]
            common = [f"word{n}" for n in rng.integers(0, 30, 15)]
            body = " ".join(rng.permutation(own + common))
            texts.append(f"From: someone@somewhere\nSubject: {label}\n\n{body}.\n\n--\nsigned\n")
        files = np.array([f"{part}/{GROUPS[label]}/{n}" for n, label in enumerate(labels)])
        parts[part] = Bunch(data=texts, target=labels, target_names=GROUPS, filenames=files)
    (root / "20news-bydate_py3.pkz").write_bytes(codecs.encode(pickle.dumps(parts), "zlib_codec"))


def zipped(folder: Path, path: Path) -> Path:
    """The content of a folder as a .zip file, below the folder's own name."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


MAKERS: dict[str, tuple[Callable[[Path, int, int], None], tuple[int, int]]] = {
    "cifar10": (cifar10, (12, 4)),
    "cifar100": (cifar100, (4, 2)),
    "cifar20": (cifar100, (4, 2)),
    "svhn": (svhn, (12, 4)),
    "mnist": (_mnist("MNIST"), (12, 4)),
    "fashion_mnist": (_mnist("FashionMNIST"), (12, 4)),
    "tiny_imagenet": (tiny_imagenet, (3, 1)),
    "celeba": (celeba, (4, 4)),
    "image_folder": (image_folder, (12, 4)),
    "imagenet": (imagenet, (6, 2)),
    "pins_faces": (pins_faces, (4, 1)),
    "vggface2": (vggface2, (10, 4)),
    "20newsgroups": (newsgroups, (12, 4)),
}
"""Each data set's maker, and how many training and test samples it makes of each class."""
