"""The spiking twin of a run alone, in files that other programs run: no factors, no artificial twin, no branches."""

from twinspike_training.export.twin import SpikingTwin, spiking_twin
from twinspike_training.export.write import FORMATS, Format, export

__all__ = ["FORMATS", "Format", "SpikingTwin", "export", "spiking_twin"]
