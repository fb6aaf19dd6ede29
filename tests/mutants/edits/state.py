"""Faults in what is kept, saved and sent; and in how the gradient is attached."""

from .edit import of

STATES = "test_state_of_others.py measured/test_paces.py measured/test_measured_state.py"

EDITS = [
    *of(
        "_saved_whole.py",
        "test_saved_whole.py test_state.py test_state_of_others.py test_threads_and_processes.py",
        ("with_replay=self._core.recipe.replay.save", "with_replay=True"),
        ("{k.removeprefix(prefix): v for", "{k: v for"),
        ('if k.partition(".")[0] not in self._modules', "if True"),
        ("missing_keys.append(prefix + KEY)", "missing_keys.append(KEY)"),
        ("[prefix + key for key in faults.missing]", "faults.missing"),
        ("[prefix + key for key in faults.unexpected]", "faults.unexpected"),
        ('error_msgs.append(f"{self._get_name()}: {NOTHING_LOADED}")', "pass"),
        ("warn(OTHERS.format(", "str(OTHERS.format("),
        ("self._refresh_stats()", "pass"),
        ("if FITTED_TO not in state:", "if False:"),
        (
            "except ValueError as error:\n            return Faults(errors=[str",
            "except KeyError as error:\n            return Faults(errors=[str",
        ),
        (
            "except ValueError as error:\n            return Faults(errors=[f",
            "except KeyError as error:\n            return Faults(errors=[f",
        ),
        ("core = Parcel(self._core) if starts_a_process() else self._core", "core = self._core"),
        ("core.open() if isinstance(core, Parcel) else core", "core"),
        ("@one_at_a_time\n    def _save", "def _save"),
    ),
    *of(
        "_state/tensors.py",
        STATES + " test_state.py",
        ("wanted in (n, ANY)", "n in (wanted, ANY, n)"),
        ("unexpected=[key for key in state if key not in expected]", "unexpected=[]"),
        ("missing=[key for key in expected if key not in state]", "missing=[]"),
        ("int(version) == VERSION", "int(version) <= VERSION + 1"),
        (
            "types[max(prefixes, key=len)]",
            "types[min(prefixes, key=len)]",
            "no key has two of the prefixes",
        ),
        ("cast[key] = tensor.to(wanted)", "cast[key] = tensor"),
        (".clone() for key in MOMENTS}", " for key in MOMENTS}"),
    ),
    *of(
        "_learning/replay_buffer.py",
        "test_replay.py",
        ("sample[-self.capacity :]", "sample[: self.capacity]"),
        ("(self._next + count) % self.capacity", "(self._next + 1) % self.capacity"),
        ("self.size = min(self.size + count, self.capacity)", "self.size = self.size + count"),
        ("(self._next - self.size + age) % self.capacity", "(self._next + age) % self.capacity"),
        ("self.max_bytes // max(sample_bytes, 1)", "self.max_bytes"),
        ("kept = self.oldest_first()", "kept = self.fields"),
        ("for n in (0, size)]", "for n in (size, 0)]"),
        ("self.fields, self.size, self._next = (), 0, 0", "self.size, self._next = 0, 0"),
    ),
    *of(
        "_learning/history.py",
        "test_history.py",
        ("self.rows = self.rows[::2]", "self.rows = self.rows[1:]"),
        ("self._every *= 2", "pass"),
        ("self._waiting = 0\n        self.rows", "self.rows"),
        ("int(header[0]), int(header[1])", "int(header[0]), 0"),
    ),
    *of(
        "_gradient.py",
        "measured/test_calls.py measured/test_bounded.py test_gradient.py",
        ("ctx.batch_dim = batch_dim", "ctx.batch_dim = 0"),
        ("return value.clone()", "return value.clone() + 1"),
        ("if torch.is_grad_enabled():", "if False:"),
        ("torch.where(weights == 0, 0.0, gradient * weights)", "gradient * weights"),
        (".to(ctx.dtype)\n        if", ".to(torch.float32)\n        if"),
    ),
    *of(
        "_support/processes.py",
        "test_threads_and_processes.py",
        ("with lock:\n            return", "if lock:\n            return"),
        ("threading.RLock(), os.getpid()\n\n", "threading.Lock(), os.getpid()\n\n"),
        ("return type(self), ()", "return str, ()"),
        ("stream.set_state(", "str("),
        ("return True", "return False"),
    ),
]
