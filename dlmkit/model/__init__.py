"""One model: found by a reference, loaded, composed, sampled, trained and saved."""

from dlmkit.model.loading import compose as compose
from dlmkit.model.loading import load_model as load_model
from dlmkit.model.loading import load_released as load_released
from dlmkit.model.loading import model_folder as model_folder
from dlmkit.model.loading import names_recipe as names_recipe
from dlmkit.model.loading import open_model as open_model
from dlmkit.model.model import SAMPLING_KEYS as SAMPLING_KEYS
from dlmkit.model.model import Model as Model
from dlmkit.model.model import Progress as Progress
from dlmkit.model.model import Run as Run
from dlmkit.model.model import Text as Text
from dlmkit.model.prompts import ANSWER as ANSWER
from dlmkit.model.prompts import Chat as Chat
