"""Images as examples: a folder with a subfolder a class, every pixel a feature.

    files, classes = list_labeled_images(folder)    # names sorted, so that the same folder gives the same examples
    x_NF = read_images(folder, files, shape)        # decoded, resized, from 0 to 1, channel by channel

What is no plain PNG or JPEG image, is too large when decoded, or leads out of the folder is refused by its name.
"""

from ._image_files import hash_images, list_images, list_labeled_images
from ._image_pixels import ImageShape, name_pixels, read_images

__all__ = ["ImageShape", "hash_images", "list_images", "list_labeled_images", "name_pixels", "read_images"]
