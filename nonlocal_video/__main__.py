"""`python -m nonlocal_video` is `nonlocal-video`."""

from nonlocal_video.cli.main import main

if __name__ == "__main__":
    main()
