package journal

const victimVar = "JOURNAL_TEST_VICTIM"

func victim(dir string) {}
