"""What a study asks for: its file, read and validated before anything starts.

``study`` is the whole; ``yaml_file`` reads it, and each of the other modules holds one part of it.
"""
