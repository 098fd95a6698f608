"""What teams run today, read and written as queues' files: the Go system's configuration, supervisord's programs, crontabs.

Pure: texts in, drafts out. Knows the names of our options and nothing of a running bus; `operations.imports` writes files.
"""
