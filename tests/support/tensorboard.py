"""Reads TensorBoard's files as TensorBoard does."""

import os
import pathlib
import struct


def summaries(path):
    """(step, value) of each point, without those that a later sitting took back."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    points = []
    folder = path if isinstance(path, os.PathLike) else pathlib.Path(path)  # which may be on an object store
    for file in sorted((folder / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]
            if event.session_log.status == SessionLog.START:
                points = [(step, value) for step, value in points if step < event.step]
            points += [(event.step, value) for value in event.summary.value]
    return points


def curve(path, tag):
    """(step, value) of each point of a scalar."""
    return [(step, value.simple_value) for step, value in summaries(path) if value.tag == tag]
