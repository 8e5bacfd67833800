"""For tests of reports: run folders (``runs``), a headless browser (``browser``), and pictures of the docs."""
