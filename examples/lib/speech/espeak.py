"""eSpeak NG as a tool: texts in, waves out. The library comes with the package espeakng-loader."""

import ctypes
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Samples a second, of all voices.
RATE = 22_050
MISSING = (
    "speech is synthesised by eSpeak NG, of the package espeakng-loader, which is not installed: "
    "`pip install --group speech` (pip 25.1), or `pip install espeakng-loader`"
)
# Of speak_lib.h.
_SYNCHRONOUS, _UTF8, _SPEED, _PITCH = 2, 1, 1, 3
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Voice(NamedTuple):
    """How something is said.

    Attributes:
        name: an accent and a variant of it, as "en-us+f3".
        speed: words a minute, 80 to 450.
        pitch: 0 to 100; 50 is the voice's own.
    """

    name: str
    speed: int = 175
    pitch: int = 50


class Synthesiser:
    """Speaks: the same texts in the same order have the same waves.

    The library keeps what it has said, phases and random numbers, in variables of its own, and
    starting it again does not clear them. So each of these loads its own copy of it.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(MISSING, name="espeakng_loader") from error
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copy(espeakng_loader.get_library_path(), Path(folder) / "espeak-ng")
            self._library = ctypes.CDLL(str(copy))
        self._parts: list[NDArray[np.int16]] = []
        # Kept, since the library calls it as long as it speaks.
        self._callback = _CALLBACK(self._receive)
        data = Path(espeakng_loader.get_data_path())
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0) != RATE:
            raise RuntimeError(f"eSpeak NG does not start with its data in {data}")
        # In place of a variant that it lacks, the library speaks without one.
        self._variants = {"", *(file.name for file in (data / "voices" / "!v").iterdir())}
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def say(self, text: str, voice: Voice) -> NDArray[np.float32]:
        """The wave of a text, `(samples,)` in -1 to 1, at `RATE`.

        Raises:
            ValueError: a voice that eSpeak NG does not have.
        """
        variant = voice.name.partition("+")[2]
        unknown = self._library.espeak_SetVoiceByName(voice.name.encode())
        if unknown or variant not in self._variants:
            raise ValueError(f"eSpeak NG has no voice {voice.name!r}")
        self._library.espeak_SetParameter(_SPEED, voice.speed, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._parts = []
        said = text.encode()
        if self._library.espeak_Synth(said, len(said) + 1, 0, 0, 0, _UTF8, None, None):
            raise RuntimeError(f"eSpeak NG cannot say {text!r}")
        return np.concatenate(self._parts).astype(np.float32) / 2**15

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
