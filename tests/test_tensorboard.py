"""What TensorBoard is given: the log and the previews, all of them and nothing else."""

import imageio.v3 as iio
import numpy as np
import pytest

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import PREVIEW_PANELS, steps_of
from tests.watched_runs import N_STEPS, make_run, same_bits

pytest.importorskip("tensorboard")


class Stop:
    """A watcher that ends the run after a step."""

    def between_steps(self, session, step):
        return "stop" if step.step == 7 else "go on"


@pytest.mark.parametrize("interrupted", [False, True])
def test_it_holds_the_log_and_the_previews_and_nothing_else(tmp_path, interrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from sjc_debiased.watching.tensorboard import PLACE, TensorBoard

    folder = tmp_path / "run"
    if interrupted:
        assert make_run(folder, TensorBoard(), Stop()).stopped
    assert not make_run(folder, TensorBoard()).stopped
    seen = EventAccumulator(str(folder / PLACE), size_guidance={"images": 0, "scalars": 0})
    seen.Reload()
    rows = [*RunReader(folder).stats()]
    numbers = {name for name, value in rows[0].items() if isinstance(value, (int, float))} - {"step"}
    assert set(seen.Tags()["scalars"]) == numbers
    assert {"sigma", "clip_value", "clipped_fraction", "azimuth_deg"} <= numbers
    for name in numbers:
        events = seen.Scalars(name)
        assert [event.step for event in events] == [row["step"] for row in rows] == [*range(N_STEPS)]
        np.testing.assert_allclose([event.value for event in events], [row[name] for row in rows], rtol=1e-6)
    run = RunReader(folder)
    written = {", ".join(PREVIEW_PANELS): run.previews, "fixed views": run.fixed_views}
    assert set(seen.Tags()["images"]) == set(written)
    for tag, pictures in written.items():
        assert [image.step for image in seen.Images(tag)] == [*map(steps_of, pictures)]
        for image, path in zip(seen.Images(tag), pictures):
            np.testing.assert_array_equal(iio.imread(image.encoded_image_string)[..., :3], iio.imread(path))
    make_run(tmp_path / "plain")
    assert same_bits(folder, tmp_path / "plain")
