"""Runs the tests of a module of CPython and prints, as JSON lines on standard output, what is
begun and how it ended. What the tests themselves print goes to standard error.

    python3 -c "$(cat outcomes.py)" MODULE [TEST...]     TEST...: ids that are left out
"""
import fcntl, json, os, sys, time, traceback, unittest
import test.support

module, *left_out = sys.argv[1:]
del sys.argv[1:]
# Tests count descriptors from 3 on and close what they find: ours is out of their way.
out = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 1000)
os.dup2(2, 1)
main = os.getpid()


def say(**line):
    # A child that runs on into our code is not to speak for the tests.
    if os.getpid() == main:
        os.write(out, json.dumps(line).encode() + b"\n")


class Outcomes(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.outcome, self.detail = "ok", ""
        say(begins=test.id())

    def stopTest(self, test):
        super().stopTest(test)
        say(test=test.id(), outcome=self.outcome, detail=self.detail[-4000:])

    def put(self, test, outcome, detail=""):
        if isinstance(test, unittest.TestCase):
            self.outcome, self.detail = outcome, self.detail + detail
        else:
            # setUpClass and setUpModule have no test of their own.
            say(test=test.id(), outcome=outcome, detail=detail[-4000:])

    def addError(self, test, err):
        self.put(test, "error", self._exc_info_to_string(err, test))

    def addFailure(self, test, err):
        self.put(test, "failure", self._exc_info_to_string(err, test))

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.put(test, "failure", f"{subtest}\n" + self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        self.put(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        self.put(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        self.put(test, "unexpected success")




# What container engines write, and a root file system of packages lacks.
with open("/etc/hosts", "w") as f:
    f.write(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {os.uname().nodename}\n")
# No gigabytes for a test; of networks there is loopback.
test.support.use_resources = dict.fromkeys(["cpu", "network", "subprocess", "walltime"])
test.support.verbose = 0
try:
    suite = unittest.defaultTestLoader.loadTestsFromName(module)
except unittest.SkipTest as e:
    say(test=module, outcome="skipped", detail=str(e))
    suite = unittest.TestSuite()
kept = lambda s: unittest.TestSuite(
    [kept(t) if isinstance(t, unittest.TestSuite) else t for t in s if isinstance(t, unittest.TestSuite) or t.id() not in left_out])
kept(suite).run(Outcomes())
say(ended=True)
os._exit(0)
