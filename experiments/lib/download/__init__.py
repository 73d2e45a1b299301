"""Downloads: files from http(s), from any fsspec URL, from a data set on the Hugging Face Hub.

From the ground up::

    sources       one request: the bytes of a URL from an offset on, and what tells the file from another one
    fetch         one file: requests until all of it is there, resumed only if it is still the same file
    files         many files into one directory        download_files(DownloadConfig)
    hugging_face  the files of a data set's revision   download_hugging_face(HuggingFaceConfig)

A file appears under its name when it is complete and its checksum, where one is known, is right.
"""
