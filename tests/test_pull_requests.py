"""Pull requests of CodeCommit: they follow their branches, wait for approvals, and are merged as git merges."""

import hashlib
import json
import os
import threading
from contextlib import suppress

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from conftest import PORT, Neargate, eventually
from test_codecommit import Git, allow, refused, user
from test_events import Listening

LINES = "".join(f"line {number}\n" for number in range(20))


def rule(needed, *pool, **more):
    statement = {"Type": "Approvers", "NumberOfApprovalsNeeded": needed}
    if pool:
        statement["ApprovalPoolMembers"] = list(pool)
    return json.dumps({"Version": "2018-11-08", **more, "Statements": [statement]})


class Work:
    """A repository with a branch `main`, and a working tree of it."""

    def __init__(self, plane, directory):
        self.plane, self.api = plane, plane.client("codecommit")
        self.name = f"pr-{os.urandom(5).hex()}"
        url = self.api.create_repository(repositoryName=self.name)["repositoryMetadata"]["cloneUrlHttp"]
        self.git = Git(plane, directory)
        self.tree = self.git.work(url)
        self.first = self.git.commit(self.tree, "file", LINES)
        self.push("main")

    def push(self, *references):
        self.git("push", "-q", "origin", *references, cwd=self.tree)

    def branch(self, name, files, start=None, push=True):
        """A branch that changes these files (None: removes them); its tip."""
        self.git("checkout", "-q", "-B", name, start or self.first, cwd=self.tree)
        for path, content in files.items():
            if content is None:
                self.git("rm", "-q", path, cwd=self.tree)
            else:
                (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
                (self.tree / path).write_text(content)
        self.git("add", "-A", cwd=self.tree)
        self.git("commit", "-q", "-m", name, cwd=self.tree)
        if push:
            self.push("--force", name) if name != "main" else self.push("main")
        return self.git("rev-parse", "HEAD", cwd=self.tree)

    def request(self, source, **more):
        target = {"repositoryName": self.name, "sourceReference": source}
        return self.api.create_pull_request(title=f"merge {source}", targets=[target], **more)["pullRequest"]

    def get(self, pull):
        return self.api.get_pull_request(pullRequestId=pull["pullRequestId"])["pullRequest"]

    def target(self, pull):
        [target] = self.get(pull)["pullRequestTargets"]
        return target

    def which(self, pull):
        return {"pullRequestId": pull["pullRequestId"], "repositoryName": self.name}

    def told(self, pull):
        answer = self.api.describe_pull_request_events(pullRequestId=pull["pullRequestId"])
        return [event["pullRequestEventType"].removeprefix("PULL_REQUEST_") for event in answer["pullRequestEvents"]]

    def tip(self, branch="main"):
        return self.api.get_branch(repositoryName=self.name, branchName=branch)["branch"]["commitId"]

    def read(self, path, commit="main"):
        return self.api.get_file(repositoryName=self.name, filePath=path, commitSpecifier=commit)["fileContent"].decode()

    def reviewer(self, name):
        """The API as another person has it."""
        key = user(self.plane, f"{self.name}-{name}", allow("codecommit:*"))
        return self.plane.client(
            "codecommit", aws_access_key_id=key["AWS_ACCESS_KEY_ID"], aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"]
        )


@pytest.fixture
def work(neargate, tmp_path):
    work = Work(neargate, tmp_path)
    yield work
    work.api.delete_repository(repositoryName=work.name)


def test_a_pull_request_follows_its_branches(neargate, work):
    listening = Listening(neargate)
    heard = listening.rule({"source": ["aws.codecommit"], "detail-type": ["CodeCommit Pull Request State Change"]})
    one = work.branch("feature", {"new": "1"})
    pull = work.request("feature", description="why", clientRequestToken="t" + work.name)
    [target] = pull["pullRequestTargets"]
    assert target["sourceReference"] == "refs/heads/feature" and target["destinationReference"] == "refs/heads/main"
    assert (target["sourceCommit"], target["destinationCommit"], target["mergeBase"]) == (one, work.first, work.first)
    assert pull["pullRequestStatus"] == "OPEN" and target["mergeMetadata"] == {"isMerged": False}
    # The same token is the same request.
    assert work.request("feature", description="why", clientRequestToken="t" + work.name) == pull
    with refused("IdempotencyParameterMismatchException"):
        work.request("feature", description="other", clientRequestToken="t" + work.name)

    two = work.branch("feature", {"new": "2"})
    now = work.get(pull)
    assert now["pullRequestTargets"][0]["sourceCommit"] == two and now["revisionId"] != pull["revisionId"]
    main = work.branch("main", {"other": "x"}, start="main")
    target = work.target(pull)
    assert (target["destinationCommit"], target["mergeBase"]) == (main, work.first)
    assert work.get(pull)["revisionId"] == now["revisionId"], "another destination is no other revision"

    titled = work.api.update_pull_request_title(pullRequestId=pull["pullRequestId"], title="better")["pullRequest"]
    assert titled["title"] == "better"
    described = work.api.update_pull_request_description(pullRequestId=pull["pullRequestId"], description="because")
    assert described["pullRequest"]["description"] == "because"

    second = work.request("feature")
    listed = work.api.list_pull_requests(repositoryName=work.name, maxResults=1)
    assert listed["pullRequestIds"] == [second["pullRequestId"]]
    listed = work.api.list_pull_requests(repositoryName=work.name, maxResults=1, nextToken=listed["nextToken"])
    assert listed["pullRequestIds"] == [pull["pullRequestId"]] and "nextToken" not in listed
    closed = work.api.update_pull_request_status(pullRequestId=second["pullRequestId"], pullRequestStatus="CLOSED")
    assert closed["pullRequest"]["pullRequestStatus"] == "CLOSED"
    with refused("PullRequestAlreadyClosedException"):
        work.api.merge_pull_request_by_squash(**work.which(second))
    open_ = work.api.list_pull_requests(repositoryName=work.name, pullRequestStatus="OPEN")
    assert open_["pullRequestIds"] == [pull["pullRequestId"]]

    # A push of the merge, fast-forward, closes it as merged; without its branch, it is closed.
    third = work.request("feature")
    work.git("checkout", "-q", "-B", "main", main, cwd=work.tree)
    other = work.branch("quick", {"quick": "1"}, start="main")
    quick = work.request("quick")
    work.push("quick:main")
    assert work.get(quick)["pullRequestStatus"] == "CLOSED"
    metadata = work.target(quick)["mergeMetadata"]
    assert metadata["isMerged"] and metadata["mergeCommitId"] == other and metadata["mergeOption"] == "FAST_FORWARD_MERGE"
    work.push(":feature")
    assert work.get(third)["pullRequestStatus"] == "CLOSED" and not work.target(third)["mergeMetadata"]["isMerged"]
    assert work.told(pull) == ["CREATED", "SOURCE_REFERENCE_UPDATED", "STATUS_CHANGED"]
    assert work.told(quick) == ["CREATED", "MERGE_STATE_CHANGED"]

    def told():
        details = [json.loads(text)["detail"] for text in listening.texts(heard)]
        own = [detail for detail in details if detail["repositoryNames"] == [work.name]]
        return own if {"pullRequestMergeStatusUpdated", "pullRequestStatusChanged"} <= {d["event"] for d in own} else None

    details = {detail["event"]: detail for detail in eventually(told, "the events")}
    created, merged = details["pullRequestCreated"], details["pullRequestMergeStatusUpdated"]
    assert created["sourceReference"] == "refs/heads/feature" or created["sourceReference"] == "refs/heads/quick"
    assert merged["isMerged"] == "True" and merged["pullRequestStatus"] == "Closed"
    assert details["pullRequestSourceBranchUpdated"]["sourceCommit"] == two
    assert merged["callerUserArn"] and work.name in merged["notificationBody"]
    listening.forget(heard)


def test_approvals(work):
    reviewers = {name: work.reviewer(name) for name in ("mary", "paul", "lee")}
    account = work.plane.client("sts").get_caller_identity()["Account"]
    # A template for main, one for another branch, one by who may approve.
    names = [f"{work.name}-{what}" for what in ("two", "other", "mary")]
    contents = [rule(2), rule(5, DestinationReferences=["refs/heads/other"]), rule(1, f"CodeCommitApprovers:{account}:{work.name}-mary")]
    for name, content in zip(names, contents):
        made = work.api.create_approval_rule_template(approvalRuleTemplateName=name, approvalRuleTemplateContent=content)
        assert made["approvalRuleTemplate"]["ruleContentSha256"] == hashlib.sha256(content.encode()).hexdigest()
    with refused("ApprovalRuleTemplateNameAlreadyExistsException"):
        work.api.create_approval_rule_template(approvalRuleTemplateName=names[0], approvalRuleTemplateContent=rule(1))
    with refused("InvalidApprovalRuleTemplateContentException", "NumberOfApprovalsNeeded"):
        work.api.create_approval_rule_template(approvalRuleTemplateName="x", approvalRuleTemplateContent=rule(0))
    work.api.associate_approval_rule_template_with_repository(approvalRuleTemplateName=names[0], repositoryName=work.name)
    for name in names[1:]:
        done = work.api.batch_associate_approval_rule_template_with_repositories(
            approvalRuleTemplateName=name, repositoryNames=[work.name, "no-such-repository"]
        )
        assert done["associatedRepositoryNames"] == [work.name]
        assert [e["errorCode"] for e in done["errors"]] == ["RepositoryDoesNotExistException"]
    of = work.api.list_associated_approval_rule_templates_for_repository(repositoryName=work.name)
    assert of["approvalRuleTemplateNames"] == sorted(names)
    of = work.api.list_repositories_for_approval_rule_template(approvalRuleTemplateName=names[0])
    assert of["repositoryNames"] == [work.name]

    work.branch("feature", {"new": "1"})
    pull = work.request("feature")
    id, revision = pull["pullRequestId"], pull["revisionId"]
    assert sorted(r["approvalRuleName"] for r in pull["approvalRules"]) == sorted([names[0], names[2]])
    assert all(r["originApprovalRuleTemplate"]["approvalRuleTemplateName"] in names for r in pull["approvalRules"])
    own = work.api.create_pull_request_approval_rule(pullRequestId=id, approvalRuleName="own", approvalRuleContent=rule(3))
    sha = own["approvalRule"]["ruleContentSha256"]
    with refused("InvalidApprovalRuleContentException", "DestinationReferences"):
        work.api.create_pull_request_approval_rule(
            pullRequestId=id, approvalRuleName="o", approvalRuleContent=rule(1, DestinationReferences=["refs/heads/main"])
        )
    with refused("InvalidRuleContentSha256Exception"):
        work.api.update_pull_request_approval_rule_content(
            pullRequestId=id, approvalRuleName="own", newRuleContent=rule(1), existingRuleContentSha256="0" * 64
        )
    changed = work.api.update_pull_request_approval_rule_content(
        pullRequestId=id, approvalRuleName="own", newRuleContent=rule(1), existingRuleContentSha256=sha
    )
    assert json.loads(changed["approvalRule"]["approvalRuleContent"])["Statements"][0]["NumberOfApprovalsNeeded"] == 1
    with refused("CannotModifyApprovalRuleFromTemplateException"):
        work.api.update_pull_request_approval_rule_content(pullRequestId=id, approvalRuleName=names[0], newRuleContent=rule(1))
    with refused("CannotDeleteApprovalRuleFromTemplateException"):
        work.api.delete_pull_request_approval_rule(pullRequestId=id, approvalRuleName=names[0])

    def evaluate():
        return work.api.evaluate_pull_request_approval_rules(pullRequestId=id, revisionId=revision)["evaluation"]

    def approve(who, state="APPROVE"):
        who.update_pull_request_approval_state(pullRequestId=id, revisionId=revision, approvalState=state)

    with refused("PullRequestCannotBeApprovedByAuthorException"):
        approve(work.api)
    with refused("PullRequestApprovalRulesNotSatisfiedException", names[0]):
        work.api.merge_pull_request_by_fast_forward(**work.which(pull))
    approve(reviewers["paul"])
    assert evaluate()["approvalRulesSatisfied"] == ["own"] and not evaluate()["approved"]
    approve(reviewers["lee"])
    assert sorted(evaluate()["approvalRulesSatisfied"]) == sorted(["own", names[0]]) and not evaluate()["approved"]
    approve(reviewers["mary"])
    assert evaluate() == {"approved": True, "overridden": False, "approvalRulesNotSatisfied": [], **evaluate()}
    states = work.api.get_pull_request_approval_states(pullRequestId=id, revisionId=revision)["approvals"]
    assert [s["userArn"].rsplit("-")[-1] for s in states] == ["lee", "mary", "paul"]
    approve(reviewers["mary"], "REVOKE")
    assert evaluate()["approvalRulesNotSatisfied"] == [names[2]]
    approve(reviewers["mary"])

    # Another revision has been approved by nobody.
    work.branch("feature", {"new": "2"})
    with refused("RevisionNotCurrentException"):
        approve(reviewers["mary"])
    revision = work.get(pull)["revisionId"]
    assert not evaluate()["approved"]
    overrides = {"pullRequestId": id, "revisionId": revision}
    work.api.override_pull_request_approval_rules(**overrides, overrideStatus="OVERRIDE")
    assert work.api.get_pull_request_override_state(**overrides)["overridden"] and evaluate()["approved"]
    with refused("OverrideAlreadySetException"):
        work.api.override_pull_request_approval_rules(**overrides, overrideStatus="OVERRIDE")
    work.api.delete_pull_request_approval_rule(pullRequestId=id, approvalRuleName="own")
    # Who may not move main may not merge into it.
    deny = {"Effect": "Deny", "Action": "codecommit:Merge*", "Resource": "*"}
    deny["Condition"] = {"StringEquals": {"codecommit:References": "refs/heads/main"}}
    key = user(work.plane, f"{work.name}-junior", allow("codecommit:*"), deny)
    junior = work.plane.client(
        "codecommit", aws_access_key_id=key["AWS_ACCESS_KEY_ID"], aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"]
    )
    with refused("AccessDeniedException"):
        junior.merge_pull_request_by_fast_forward(**work.which(pull))
    merged = reviewers["mary"].merge_pull_request_by_fast_forward(**work.which(pull))["pullRequest"]
    metadata = merged["pullRequestTargets"][0]["mergeMetadata"]
    assert metadata["isMerged"] and metadata["mergedBy"].endswith("-mary") and work.tip() == work.tip("feature")
    told = work.told(pull)
    assert told[0] == "CREATED" and told[-1] == "MERGE_STATE_CHANGED"
    for what in ("RULE_CREATED", "RULE_UPDATED", "RULE_OVERRIDDEN", "RULE_DELETED", "STATE_CHANGED"):
        assert f"APPROVAL_{what}" in told, told

    renamed = work.api.update_approval_rule_template_name(
        oldApprovalRuleTemplateName=names[1], newApprovalRuleTemplateName=f"{names[1]}-2"
    )
    names[1] = renamed["approvalRuleTemplate"]["approvalRuleTemplateName"]
    work.api.update_approval_rule_template_description(approvalRuleTemplateName=names[1], approvalRuleTemplateDescription="d")
    work.api.update_approval_rule_template_content(approvalRuleTemplateName=names[1], newRuleContent=rule(7))
    found = work.api.get_approval_rule_template(approvalRuleTemplateName=names[1])["approvalRuleTemplate"]
    assert found["approvalRuleTemplateDescription"] == "d" and json.loads(found["approvalRuleTemplateContent"])["Statements"]
    assert set(names) <= set(work.api.list_approval_rule_templates()["approvalRuleTemplateNames"])
    with refused("ApprovalRuleTemplateInUseException"):
        work.api.delete_approval_rule_template(approvalRuleTemplateName=names[0])
    work.api.disassociate_approval_rule_template_from_repository(approvalRuleTemplateName=names[0], repositoryName=work.name)
    gone = work.api.batch_disassociate_approval_rule_template_from_repositories(
        approvalRuleTemplateName=names[1], repositoryNames=[work.name]
    )
    assert gone["disassociatedRepositoryNames"] == [work.name] and not gone["errors"]
    work.api.disassociate_approval_rule_template_from_repository(approvalRuleTemplateName=names[2], repositoryName=work.name)
    for name in names:
        work.api.delete_approval_rule_template(approvalRuleTemplateName=name)
    with refused("ApprovalRuleTemplateDoesNotExistException"):
        work.api.get_approval_rule_template(approvalRuleTemplateName=names[0])


def test_merges_are_gits(work):
    """What the API merges by lines is what git merges."""
    head, tail = LINES.replace("line 0\n", "HEAD\n"), LINES.replace("line 19\n", "TAIL\n")
    main = work.branch("main", {"file": head, "kept/a": "a"})
    side = work.branch("side", {"file": tail, "b": "b"})
    which = {"repositoryName": work.name, "sourceCommitSpecifier": "side", "destinationCommitSpecifier": "main"}
    options = work.api.get_merge_options(**which)
    assert options["mergeOptions"] == [] and options["baseCommitId"] == work.first, "both changed the file"
    lines = {"conflictDetailLevel": "LINE_LEVEL"}
    assert work.api.get_merge_options(**which, **lines)["mergeOptions"] == ["SQUASH_MERGE", "THREE_WAY_MERGE"]
    found = work.api.get_merge_conflicts(**which, mergeOption="THREE_WAY_MERGE")
    [conflict] = found["conflictMetadataList"]
    assert not found["mergeable"] and conflict["filePath"] == "file" and conflict["contentConflict"]
    assert conflict["mergeOperations"] == {"source": "M", "destination": "M"}
    assert conflict["fileSizes"] == {"source": len(tail), "destination": len(head), "base": len(LINES)}
    assert conflict["isBinaryFile"] == {"source": False, "destination": False, "base": False}

    pull = work.request("side")
    with refused("ManualMergeRequiredException", "file"):
        work.api.merge_pull_request_by_three_way(**work.which(pull))
    with refused("ManualMergeRequiredException"):
        work.api.merge_pull_request_by_fast_forward(**work.which(pull))
    with refused("TipOfSourceReferenceIsDifferentException"):
        work.api.merge_pull_request_by_three_way(**work.which(pull), **lines, sourceCommitId=work.first)
    words = {"authorName": "Li", "email": "li@example.com", "commitMessage": "together"}
    merged = work.api.merge_pull_request_by_three_way(**work.which(pull), **lines, **words, sourceCommitId=side)
    [target] = merged["pullRequest"]["pullRequestTargets"]
    commit = target["mergeMetadata"]["mergeCommitId"]
    assert work.tip() == commit and target["mergeMetadata"]["mergeOption"] == "THREE_WAY_MERGE"
    found = work.api.get_commit(repositoryName=work.name, commitId=commit)["commit"]
    assert found["parents"] == [main, side] and found["message"] == "together" and found["author"]["name"] == "Li"
    work.git("checkout", "-q", "-B", "mine", main, cwd=work.tree)
    work.git("merge", "-q", "-m", "mine", "side", cwd=work.tree)
    assert found["treeId"] == work.git("rev-parse", "HEAD^{tree}", cwd=work.tree)
    work.git("fetch", "-q", cwd=work.tree)
    assert work.git("fsck", "--strict", cwd=work.tree) == ""

    # Squashed: one parent. Forward: no commit of its own.
    work.branch("squashed", {"c": "c"}, start="origin/main")
    work.branch("squashed", {"d": "d"}, start="squashed")
    pull = work.request("squashed")
    merged = work.api.merge_pull_request_by_squash(**work.which(pull))["pullRequest"]
    found = work.api.get_commit(repositoryName=work.name, commitId=work.tip())["commit"]
    assert found["parents"] == [commit] and pull["pullRequestId"] in found["message"] and work.read("d") == "d"
    assert merged["pullRequestTargets"][0]["mergeMetadata"]["mergeOption"] == "SQUASH_MERGE"

    work.git("fetch", "-q", cwd=work.tree)
    on = work.branch("on", {"e": "e"}, start="origin/main")
    which = {"repositoryName": work.name, "sourceCommitSpecifier": "on", "destinationCommitSpecifier": "main"}
    assert work.api.get_merge_options(**which)["mergeOptions"][0] == "FAST_FORWARD_MERGE"
    assert work.api.merge_branches_by_fast_forward(**which)["commitId"] == on == work.tip()
    # Once more: there is nothing to merge.
    assert work.api.merge_branches_by_fast_forward(**which)["commitId"] == on
    same = work.request("on")
    merged = work.api.merge_pull_request_by_fast_forward(**work.which(same))["pullRequest"]
    assert merged["pullRequestStatus"] == "CLOSED" and work.tip() == on
    with refused("InvalidTargetBranchException"):
        work.api.merge_branches_by_squash(**{**which, "destinationCommitSpecifier": work.first}, targetBranch="main")


def test_conflicts_are_decided(work):
    ours, theirs = LINES.replace("line 5\n", "OURS\n"), LINES.replace("line 5\n", "THEIRS\n").replace("line 19\n", "TAIL\n")
    work.branch("main", {"bin": "\0a", "gone": "1", "place/x": "1", "keep/only": "1"})
    start = work.tip()
    work.branch("main", {"file": ours, "bin": "\0b", "gone": None, "thing": "file", "keep/only": "2"}, start=start)
    main = work.tip()
    work.branch("side", {"file": theirs, "bin": "\0c", "gone": "2", "thing/in": "folder", "keep/only": "3"}, start=start)
    which = {"repositoryName": work.name, "sourceCommitSpecifier": "side", "destinationCommitSpecifier": "main"}
    found = work.api.get_merge_conflicts(**which, mergeOption="THREE_WAY_MERGE", conflictDetailLevel="LINE_LEVEL", maxConflictFiles=2)
    more = work.api.get_merge_conflicts(
        **which, mergeOption="THREE_WAY_MERGE", conflictDetailLevel="LINE_LEVEL", nextToken=found["nextToken"]
    )
    conflicts = {c["filePath"]: c for c in found["conflictMetadataList"] + more["conflictMetadataList"]}
    assert sorted(conflicts) == ["bin", "file", "gone", "keep/only", "thing"]
    assert conflicts["bin"]["isBinaryFile"] == {"source": True, "destination": True, "base": True}
    assert conflicts["file"]["numberOfConflicts"] == 1 and conflicts["thing"]["objectTypeConflict"]
    assert conflicts["gone"]["mergeOperations"] == {"source": "M", "destination": "D"}

    def merged(**more):
        """What a merge comes to that moves no branch."""
        made = work.api.create_unreferenced_merge_commit(**which, mergeOption="THREE_WAY_MERGE", **more)
        assert work.tip() == main
        return made["commitId"]

    for strategy, file, gone in (("ACCEPT_SOURCE", theirs, "2"), ("ACCEPT_DESTINATION", ours, None)):
        commit = merged(conflictResolutionStrategy=strategy)
        assert work.read("file", commit) == file
        byline = merged(conflictResolutionStrategy=strategy, conflictDetailLevel="LINE_LEVEL")
        assert work.read("file", byline) == file.replace("line 19\n", "TAIL\n"), "what does not conflict is merged"
        for commit in (commit, byline):
            folder = work.api.get_folder(repositoryName=work.name, commitSpecifier=commit, folderPath="/")
            names = [f["relativePath"] for f in folder["files"]], [f["relativePath"] for f in folder["subFolders"]]
            assert ("gone" in names[0]) == (gone is not None)
            assert ("thing" in names[1]) == (strategy == "ACCEPT_SOURCE") and ("thing" in names[0]) != ("thing" in names[1])

    decisions = {
        "replaceContents": [
            {"filePath": "file", "replacementType": "USE_NEW_CONTENT", "content": b"new\n", "fileMode": "EXECUTABLE"},
            {"filePath": "bin", "replacementType": "KEEP_BASE"},
            {"filePath": "gone", "replacementType": "KEEP_SOURCE"},
        ],
        "deleteFiles": [{"filePath": "thing"}, {"filePath": "keep/only"}],
    }
    auto = {"conflictResolutionStrategy": "AUTOMERGE", "keepEmptyFolders": True}
    with refused("ManualMergeRequiredException"):
        merged(**auto)
    for bad, code in (
        ({"deleteFiles": [{"filePath": "place/x"}]}, "InvalidConflictResolutionException"),
        ({"deleteFiles": [{"filePath": "gone"}, {"filePath": "/gone"}]}, "MultipleConflictResolutionEntriesException"),
        ({"replaceContents": [{"filePath": "gone", "replacementType": "USE_NEW_CONTENT"}]}, "ReplacementContentRequiredException"),
        ({"setFileModes": [{"filePath": "file", "fileMode": "NORMAL"}]}, "InvalidConflictResolutionException"),
    ):
        with refused(code):
            merged(**auto, conflictResolution=bad)
    with refused("InvalidConflictResolutionException"):
        merged(conflictResolution=decisions)
    commit = work.api.merge_branches_by_squash(**which, **auto, conflictResolution=decisions)["commitId"]
    assert work.tip() == commit and work.read("file") == "new\n" and work.read("bin") == "\0a" and work.read("gone") == "2"
    assert work.read("thing/in") == "folder" and work.read("keep/.gitkeep") == ""
    mode = work.api.get_file(repositoryName=work.name, filePath="file")["fileMode"]
    assert mode == "EXECUTABLE"

    # Modes alone: what both did to a file that was not there before.
    for branch, mode in (("one", "755"), ("two", "644")):
        work.git("checkout", "-q", "-B", branch, start, cwd=work.tree)
        (work.tree / "script").write_text("#!/bin/sh\n")
        (work.tree / "script").chmod(int(mode, 8))
        work.git("add", "-A", cwd=work.tree)
        work.git("commit", "-q", "-m", branch, cwd=work.tree)
        work.push(branch)
    which = {"repositoryName": work.name, "sourceCommitSpecifier": "one", "destinationCommitSpecifier": "two"}
    found = work.api.get_merge_conflicts(**which, mergeOption="SQUASH_MERGE", conflictDetailLevel="LINE_LEVEL")
    [conflict] = found["conflictMetadataList"]
    assert conflict["fileModeConflict"] and not conflict["contentConflict"] and conflict["numberOfConflicts"] == 1
    decisions = {"setFileModes": [{"filePath": "script", "fileMode": "EXECUTABLE"}]}
    work.api.merge_branches_by_three_way(**which, conflictResolutionStrategy="AUTOMERGE", conflictResolution=decisions)
    script = work.api.get_file(repositoryName=work.name, filePath="script", commitSpecifier="two")
    assert script["fileMode"] == "EXECUTABLE"


def test_what_is_refused(work):
    with refused("InvalidPullRequestIdException"):
        work.api.get_pull_request(pullRequestId="x")
    with refused("PullRequestDoesNotExistException"):
        work.api.get_pull_request(pullRequestId="999999")
    target = {"repositoryName": work.name, "sourceReference": "main"}
    for changed, code in (
        ({}, "SourceAndDestinationAreSameException"),
        ({"sourceReference": "none"}, "ReferenceDoesNotExistException"),
        ({"sourceReference": "a..b"}, "InvalidReferenceNameException"),
        ({"sourceReference": "refs/tags/v1"}, "ReferenceTypeNotSupportedException"),
        ({"repositoryName": "none"}, "RepositoryDoesNotExistException"),
    ):
        with refused(code):
            work.api.create_pull_request(title="t", targets=[{**target, **changed}])
    with refused("InvalidTitleException"):
        work.api.create_pull_request(title="t" * 151, targets=[target])
    with refused("TargetsRequiredException"):
        work.api.create_pull_request(title="t", targets=[])
    # Of other beginnings: whether they conflict cannot be told.
    work.git("checkout", "-q", "--orphan", "apart", cwd=work.tree)
    work.git("commit", "-q", "-m", "apart", cwd=work.tree)
    work.push("apart")
    pull = work.request("apart")
    assert "mergeBase" not in pull["pullRequestTargets"][0]
    with refused("TipsDivergenceExceededException"):
        work.api.merge_pull_request_by_three_way(**work.which(pull))
    with refused("RepositoryDoesNotExistException"):
        work.api.merge_pull_request_by_three_way(pullRequestId=pull["pullRequestId"], repositoryName="none")
    other = work.api.create_repository(repositoryName=f"{work.name}-o")["repositoryMetadata"]["repositoryName"]
    with refused("RepositoryNotAssociatedWithPullRequestException"):
        work.api.merge_pull_request_by_three_way(pullRequestId=pull["pullRequestId"], repositoryName=other)
    work.api.delete_repository(repositoryName=other)


def test_no_merge_is_lost_or_half_done(tmp_path):
    """`kill -9` while pull requests are merged: one is merged and closed, or neither."""
    plane = Neargate(tmp_path / "state", PORT + 17)
    plane.start()
    try:
        work = Work(plane, tmp_path / "work")
        pulls = []
        for number in range(20):
            work.branch(f"b{number}", {f"dir/b{number}": f"b{number}"}, push=False)
        work.push("--all")
        for number in range(20):
            pulls.append((f"b{number}", work.request(f"b{number}")))
        acknowledged, refusals, left = {}, [], iter(pulls)

        def merge():
            for name, pull in left:
                try:
                    merged = work.api.merge_pull_request_by_three_way(**work.which(pull))["pullRequest"]
                except ClientError as error:
                    refusals.append(error)
                    continue
                acknowledged[name] = merged["pullRequestTargets"][0]["mergeMetadata"]["mergeCommitId"]

        for round in range(1, 4):
            thread = threading.Thread(target=lambda: suppressed(merge))
            thread.start()
            # By then the next one has begun.
            eventually(lambda: len(acknowledged) >= 2 * round, f"some are merged, but for {refusals}")
            plane.kill()
            thread.join()
            plane.start()
        eventually(lambda: work.tip(), "the repository")
        folder = work.api.get_folder(repositoryName=work.name, folderPath="/dir")
        there = {file["relativePath"] for file in folder["files"]}
        assert acknowledged and set(acknowledged) <= there
        for name, pull in pulls:
            target = eventually(lambda: closed_as(work, pull, name in there), f"{name} as it is on main")
            if name in acknowledged:
                assert target["mergeMetadata"]["mergeCommitId"] == acknowledged[name]
        # And it goes on.
        name, pull = next((name, pull) for name, pull in pulls if name not in there)
        work.api.merge_pull_request_by_squash(**work.which(pull))
        assert work.read(f"dir/{name}") == name
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)


def suppressed(merge):
    """Until the other side is killed."""
    with suppress(BotoCoreError):
        merge()


def closed_as(work, pull, merged):
    """The target of a pull request that is closed if it was merged and open otherwise, once it is so."""
    found = work.get(pull)
    [target] = found["pullRequestTargets"]
    right = (found["pullRequestStatus"] == "CLOSED") == merged == target["mergeMetadata"]["isMerged"]
    return target if right else None
