"""Small files in the formats of real data, for the tests."""

import gzip
import io

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def png(array) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG")
    return out.getvalue()


def write_idx(folder, train, test, compress=True):
    """train, test: (images (N,H,W), labels (N,)) as uint8 arrays."""
    folder.mkdir(exist_ok=True)
    for stem, (images, labels) in (("train", train), ("t10k", test)):
        for kind, array in (("images", images), ("labels", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            content = head + array.tobytes()
            name = f"{stem}-{kind}-idx{array.ndim}-ubyte"
            (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)


def write_parquet(folder, images, labels, split, label="label", metadata=None):
    cells = [{"bytes": png(image), "path": None} for image in images]
    table = pyarrow.table({"img": cells, label: list(map(int, labels))})
    folder.mkdir(exist_ok=True, parents=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), folder / f"{split}-00000-of-00001.parquet")


def write_image_folder(root, images, labels):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / f"class{label}"
        place.mkdir(exist_ok=True, parents=True)
        (place / f"{i:03d}.png").write_bytes(png(image))
