"""A server of completions: OpenAI's protocol over HTTP, in front of continuous batching.

scheduler     `Scheduler`: texts join and leave between the model's steps; slots of memory are `session.slots`
growing       one job's texts in the batch          beside   searches, in a thread of their own
jobs          what is to be written, and the events that tell of it
turns         one model, several threads
limits        every limit, with its default and help
errors        what a client is told               observing   what the work is watched by
"""
