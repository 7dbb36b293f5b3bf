import numpy as np
import pytest
import tensorflow as tf

from audiotag.models.patches import JoinPatches, SplitPatches


@pytest.mark.parametrize(("num_frames", "hop"), [(96, 48), (10, 7), (5, 5)])
def test_patches_are_the_frames_of_tensorflow(num_frames, hop):
    split, join = SplitPatches(num_frames=num_frames, hop=hop), JoinPatches()
    for frames in (num_frames, num_frames + 1, num_frames + hop - 1, num_frames + hop, 200):
        image = np.random.default_rng(0).standard_normal((3, 4, frames, 2)).astype("float32")
        expected = tf.signal.frame(image.transpose(0, 2, 1, 3), num_frames, hop, axis=1).numpy()  # [B, W, T', M, C]
        patches = np.array(split(image))
        np.testing.assert_array_equal(patches, expected.reshape(-1, num_frames, 4, 2))
        joined = join((patches.reshape(len(patches), -1), image))
        np.testing.assert_array_equal(joined, expected.reshape(*expected.shape[:2], -1))


def test_an_image_shorter_than_a_patch_repeats_its_last_frame():
    image = np.arange(3, dtype="float32").reshape(1, 1, 3, 1)
    assert np.array(SplitPatches(num_frames=5, hop=2)(image)).ravel().tolist() == [0, 1, 2, 2, 2]
