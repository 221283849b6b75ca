"""Whether an answer is right: it is taken out of the response, and compared with the reference's."""
