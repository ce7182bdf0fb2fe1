"""Published files of the Allen Human Brain Atlas -> labelled blocks: fetch, simulate, parse, check, name."""
