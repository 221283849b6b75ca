"""The stages of a run, one file each; `pipeline` calls them in order."""
