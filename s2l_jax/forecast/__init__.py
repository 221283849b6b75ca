"""What a run will take on devices that are not here: memory, work, traffic and time, program by program."""
