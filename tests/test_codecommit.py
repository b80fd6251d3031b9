"""CodeCommit: real git pushes and pulls, the API sees the same, and nothing that was acknowledged is lost."""

import base64
import gzip
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, ROOT, Neargate, eventually
from test_cloudformation import Stacks

REGION = "us-east-1"
ZERO = "0" * 40


@contextmanager
def refused(code, says=""):
    with pytest.raises(ClientError) as error:
        yield
    answer = error.value.response["Error"]
    assert answer["Code"] == code and says in answer["Message"], answer


class Git:
    """A person's git, in a directory of its own, logged in by the AWS CLI's credential helper or a name and password."""

    def __init__(self, plane, directory, login=None, key=None):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        variables = {k: v for k, v in plane.env().items() if k.startswith("AWS_")}
        variables.update(key or {})
        config = [("user.name", "Jane Doe"), ("user.email", "jane@example.com"), ("init.defaultBranch", "main")]
        config.append(("credential.helper", ""))
        if login:
            name, password = login
            helper = f"!f() {{ echo username={name}; echo password={password}; }}; f"
        else:
            helper = f"!{ROOT}/.venv/bin/aws codecommit credential-helper get --ignore-host-check #"
        config += [("credential.helper", helper), ("credential.UseHttpPath", "true")]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": str(len(config)),
            **variables,
        }
        for index, (key, value) in enumerate(config):
            self.environment |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}

    def try_(self, *words, cwd=None):
        return subprocess.run(
            ["git", *words], cwd=cwd or self.directory, env=self.environment, capture_output=True, text=True, timeout=300
        )

    def __call__(self, *words, cwd=None):
        done = self.try_(*words, cwd=cwd)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    def work(self, url, name="work"):
        """A new working tree with this remote."""
        tree = self.directory / name
        self("init", "-q", str(tree))
        self("remote", "add", "origin", url, cwd=tree)
        return tree

    def commit(self, tree, path, content, message="a change"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
        self("add", "-A", cwd=tree)
        self("commit", "-q", "-m", message, cwd=tree)
        return self("rev-parse", "HEAD", cwd=tree)


@pytest.fixture(scope="module")
def codecommit(neargate):
    return neargate.client("codecommit")


@pytest.fixture
def repository(codecommit, request):
    name = f"r-{os.urandom(5).hex()}"
    made = codecommit.create_repository(repositoryName=name)["repositoryMetadata"]
    yield made
    codecommit.delete_repository(repositoryName=name)


def user(neargate, name, *statements):
    """An IAM user who may do this; their key."""
    iam = neargate.client("iam")
    iam.create_user(UserName=name)
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def allow(*actions, **more):
    return {"Effect": "Allow", "Action": list(actions), "Resource": "*", **more}


def test_a_push_is_what_everyone_sees(neargate, codecommit, repository, tmp_path):
    name, url = repository["repositoryName"], repository["cloneUrlHttp"]
    assert url == f"http://git-codecommit.{REGION}.localhost:{PORT}/v1/repos/{name}"
    assert "defaultBranch" not in repository
    git = Git(neargate, tmp_path)
    tree = git.work(url)
    first = git.commit(tree, "src/app.py", "print('one')\n", "the first\n\nwith a body")
    git("push", "-q", "origin", "main", cwd=tree)

    assert codecommit.get_branch(repositoryName=name, branchName="main")["branch"] == {"branchName": "main", "commitId": first}
    found = codecommit.get_repository(repositoryName=name)["repositoryMetadata"]
    assert found["defaultBranch"] == "main" and found["lastModifiedDate"] > found["creationDate"]
    commit = codecommit.get_commit(repositoryName=name, commitId=first)["commit"]
    assert commit["message"] == "the first\n\nwith a body\n" and commit["parents"] == []
    assert commit["author"]["name"] == "Jane Doe" and commit["author"]["email"] == "jane@example.com"
    assert commit["treeId"] == git("rev-parse", "HEAD^{tree}", cwd=tree)
    file = codecommit.get_file(repositoryName=name, filePath="/src/app.py")
    assert file["fileContent"] == b"print('one')\n" and file["commitId"] == first and file["fileMode"] == "NORMAL"

    second = git.commit(tree, "run.sh", "#!/bin/sh\n")
    git("tag", "-a", "v1", "-m", "one", cwd=tree)
    git("push", "-q", "origin", "main", "HEAD:refs/heads/feature/x", "v1", cwd=tree)
    assert codecommit.list_branches(repositoryName=name)["branches"] == ["feature/x", "main"]
    # An annotated tag names the commit behind it.
    assert codecommit.get_folder(repositoryName=name, commitSpecifier="v1", folderPath="/")["commitId"] == second

    clone = tmp_path / "clone"
    git("clone", "-q", url, str(clone))
    assert git("rev-parse", "HEAD", cwd=clone) == second
    shallow = tmp_path / "shallow"
    git("clone", "-q", "--depth", "1", "--branch", "feature/x", url, str(shallow))
    assert git("rev-list", "--count", "HEAD", cwd=shallow) == "1"

    # A force push, and a branch that goes.
    git("reset", "-q", "--hard", first, cwd=tree)
    other = git.commit(tree, "other.txt", "x")
    assert git.try_("push", "-q", "origin", "main", cwd=tree).returncode != 0
    git("push", "-q", "--force", "origin", "main", cwd=tree)
    git("push", "-q", "origin", ":feature/x", cwd=tree)
    assert codecommit.get_branch(repositoryName=name, branchName="main")["branch"]["commitId"] == other
    assert codecommit.list_branches(repositoryName=name)["branches"] == ["main"]
    done = git.try_("push", "origin", ":main", cwd=tree)
    assert done.returncode != 0 and "deletion of the current branch" in done.stderr


def test_the_old_protocol_and_packed_requests(neargate, codecommit, repository, tmp_path):
    """Protocol version 0, and a fetch whose request is so long that git sends it gzipped."""
    url = repository["cloneUrlHttp"]
    git = Git(neargate, tmp_path)
    tree = git.work(url)
    for number in range(120):
        git("commit", "-q", "--allow-empty", "-m", str(number), cwd=tree)
        git("branch", f"b{number}", cwd=tree)
    git("push", "-q", "--all", cwd=tree)
    listed = codecommit.list_branches(repositoryName=repository["repositoryName"])["branches"]
    assert len(listed) == 121
    for version in ["0", "2"]:
        clone = tmp_path / f"clone-{version}"
        trace = tmp_path / f"trace-{version}"
        git.environment["GIT_TRACE_CURL"] = str(trace)
        git("-c", f"protocol.version={version}", "clone", "-q", "--no-single-branch", url, str(clone))
        del git.environment["GIT_TRACE_CURL"]
        assert "Content-Encoding: gzip" in trace.read_text()
        assert len(git("branch", "-r", cwd=clone).splitlines()) == 122


def test_who_may_what(neargate, codecommit, repository, tmp_path):
    name, url = repository["repositoryName"], repository["cloneUrlHttp"]
    admin = Git(neargate, tmp_path / "admin")
    tree = admin.work(url)
    admin.commit(tree, "a", "a")
    admin("push", "-q", "origin", "main", cwd=tree)

    reader = Git(neargate, tmp_path / "reader", key=user(neargate, f"{name}-reader", allow("codecommit:GitPull")))
    read = reader.directory / "read"
    reader("clone", "-q", url, str(read))
    reader.commit(read, "b", "b")
    done = reader.try_("push", "origin", "main", cwd=read)
    assert done.returncode != 0 and "403" in done.stderr

    nobody = Git(neargate, tmp_path / "nobody", key=user(neargate, f"{name}-nobody", allow("s3:*")))
    done = nobody.try_("ls-remote", url)
    assert done.returncode != 0 and "403" in done.stderr
    wrong = Git(neargate, tmp_path / "wrong", key={"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert "403" in wrong.try_("ls-remote", url).stderr
    elsewhere = Git(neargate, tmp_path / "elsewhere", key={"AWS_DEFAULT_REGION": "eu-west-1"})
    assert "403" in elsewhere.try_("ls-remote", url).stderr, "a signature for another region"
    missing = admin.try_("ls-remote", url + "x")
    assert missing.returncode != 0 and "not found" in missing.stderr

    # AWS's own example of a policy that protects branches.
    deny = {
        "Effect": "Deny",
        "Action": ["codecommit:GitPush", "codecommit:DeleteBranch", "codecommit:PutFile"],
        "Resource": "*",
        "Condition": {
            "StringEqualsIfExists": {"codecommit:References": ["refs/heads/main"]},
            "Null": {"codecommit:References": "false"},
        },
    }
    key = user(neargate, f"{name}-junior", allow("codecommit:*"), deny)
    junior = Git(neargate, tmp_path / "junior", key=key)
    own = junior.directory / "own"
    junior("clone", "-q", url, str(own))
    tip = junior.commit(own, "c", "c")
    done = junior.try_("push", "origin", "main", cwd=own)
    assert done.returncode != 0 and "403" in done.stderr
    junior("push", "-q", "origin", "HEAD:refs/heads/mine", cwd=own)
    assert codecommit.get_branch(repositoryName=name, branchName="mine")["branch"]["commitId"] == tip
    client = neargate.client("codecommit", aws_access_key_id=key["AWS_ACCESS_KEY_ID"], aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"])
    with refused("AccessDeniedException", "codecommit:PutFile"):
        client.put_file(repositoryName=name, branchName="main", filePath="x", fileContent=b"", parentCommitId=tip)


def test_git_credentials(neargate, repository, tmp_path):
    name, url = repository["repositoryName"], repository["cloneUrlHttp"]
    iam = neargate.client("iam")
    user(neargate, name, allow("codecommit:*"))
    service = "codecommit.amazonaws.com"
    first = iam.create_service_specific_credential(UserName=name, ServiceName=service)["ServiceSpecificCredential"]
    account = repository["accountId"]
    assert first["ServiceUserName"] == f"{name}-at-{account}" and first["Status"] == "Active"
    second = iam.create_service_specific_credential(UserName=name, ServiceName=service)["ServiceSpecificCredential"]
    assert second["ServiceUserName"] == f"{name}+1-at-{account}"
    with refused("LimitExceeded"):
        iam.create_service_specific_credential(UserName=name, ServiceName=service)
    with refused("NotSupportedService"):
        iam.create_service_specific_credential(UserName=name, ServiceName="cassandra.amazonaws.com")

    def works(credential, password=None):
        login = (credential["ServiceUserName"], password or credential["ServicePassword"])
        done = Git(neargate, tmp_path / os.urandom(4).hex(), login=login).try_("ls-remote", url)
        assert done.returncode == 0 or "403" in done.stderr, done.stderr
        return done.returncode == 0

    assert works(first) and works(second)
    assert not works(first, second["ServicePassword"]) and not works(first, first["ServicePassword"][:-1])
    identity = dict(UserName=name, ServiceSpecificCredentialId=first["ServiceSpecificCredentialId"])
    iam.update_service_specific_credential(Status="Inactive", **identity)
    assert not works(first)
    iam.update_service_specific_credential(Status="Active", **identity)
    again = iam.reset_service_specific_credential(**identity)["ServiceSpecificCredential"]
    assert not works(first) and works(again)
    listed = iam.list_service_specific_credentials(UserName=name)["ServiceSpecificCredentials"]
    assert {one["ServiceSpecificCredentialId"] for one in listed} == {one["ServiceSpecificCredentialId"] for one in [first, second]}
    assert all("ServicePassword" not in one for one in listed)
    iam.delete_service_specific_credential(**identity)
    assert not works(again)
    with refused("NoSuchEntity"):
        iam.delete_service_specific_credential(**identity)
    for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName=name, PolicyName="own")
    with refused("DeleteConflict", "service specific credentials"):
        iam.delete_user(UserName=name)


def test_sessions_log_in(neargate, repository, tmp_path):
    """A role's session signs with its token."""
    iam, name = neargate.client("iam"), f"role-{repository['repositoryName']}"
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("codecommit:GitPull")]})
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=document)
    session = neargate.client("sts").assume_role(RoleArn=arn, RoleSessionName="build")["Credentials"]
    key = {
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }
    Git(neargate, tmp_path / "a", key=key)("ls-remote", repository["cloneUrlHttp"])
    done = Git(neargate, tmp_path / "b", key={**key, "AWS_SESSION_TOKEN": "x"}).try_("ls-remote", repository["cloneUrlHttp"])
    assert "403" in done.stderr


def test_files_by_the_api(neargate, codecommit, repository, tmp_path):
    name, url = repository["repositoryName"], repository["cloneUrlHttp"]
    of = dict(repositoryName=name, branchName="main")
    one = codecommit.put_file(filePath="docs/a.txt", fileContent=b"a\n", commitMessage="first", name="Ann", email="ann@example.com", **of)
    with refused("ParentCommitIdRequiredException"):
        codecommit.put_file(filePath="b", fileContent=b"b", **of)
    with refused("ParentCommitDoesNotExistException"):
        codecommit.put_file(filePath="b", fileContent=b"b", parentCommitId="a" * 40, **of)
    with refused("SameFileContentException"):
        codecommit.put_file(filePath="docs/a.txt", fileContent=b"a\n", parentCommitId=one["commitId"], **of)
    with refused("DirectoryNameConflictsWithFileNameException"):
        codecommit.put_file(filePath="docs/a.txt/b", fileContent=b"", parentCommitId=one["commitId"], **of)
    with refused("FileNameConflictsWithDirectoryNameException"):
        codecommit.put_file(filePath="docs", fileContent=b"", parentCommitId=one["commitId"], **of)
    with refused("BranchDoesNotExistException"):
        codecommit.put_file(repositoryName=name, branchName="other", filePath="x", fileContent=b"")
    with refused("InvalidPathException"):
        codecommit.put_file(filePath="../x", fileContent=b"", parentCommitId=one["commitId"], **of)
    with refused("InvalidPathException"):
        codecommit.put_file(filePath=".git/config", fileContent=b"", parentCommitId=one["commitId"], **of)
    with refused("FileContentSizeLimitExceededException"):
        codecommit.put_file(filePath="big", fileContent=bytes((6 << 20) + 1), parentCommitId=one["commitId"], **of)

    two = codecommit.create_commit(
        parentCommitId=one["commitId"],
        authorName="Bob",
        email="bob@example.com",
        commitMessage="several",
        putFiles=[
            {"filePath": "run.sh", "fileMode": "EXECUTABLE", "fileContent": b"#!/bin/sh\n"},
            {"filePath": "link", "fileMode": "SYMLINK", "fileContent": b"run.sh"},
            {"filePath": "moved/a.txt", "sourceFile": {"filePath": "docs/a.txt", "isMove": True}},
        ],
        keepEmptyFolders=True,
        **of,
    )
    assert [f["absolutePath"] for f in two["filesAdded"]] == ["run.sh", "link", "moved/a.txt"]
    assert [f["absolutePath"] for f in two["filesDeleted"]] == ["docs/a.txt"]
    with refused("ParentCommitIdOutdatedException"):
        codecommit.put_file(filePath="b", fileContent=b"b", parentCommitId=one["commitId"], **of)
    for code, wrong in [
        ("FileEntryRequiredException", {}),
        ("SamePathRequestException", {"putFiles": [{"filePath": "x", "fileContent": b""}], "deleteFiles": [{"filePath": "/x"}]}),
        ("FileDoesNotExistException", {"deleteFiles": [{"filePath": "nothing"}]}),
        ("NoChangeException", {"setFileModes": [{"filePath": "run.sh", "fileMode": "EXECUTABLE"}]}),
        ("SourceFileOrContentRequiredException", {"putFiles": [{"filePath": "x"}]}),
    ]:
        with refused(code):
            codecommit.create_commit(parentCommitId=two["commitId"], **of, **wrong)

    # Git sees what the API wrote, and finds nothing wrong with it.
    git = Git(neargate, tmp_path)
    clone = tmp_path / "clone"
    git("clone", "-q", url, str(clone))
    git("fsck", "--strict", cwd=clone)
    assert git("log", "--format=%H %an <%ae> %s", cwd=clone).splitlines() == [
        f"{two['commitId']} Bob <bob@example.com> several",
        f"{one['commitId']} Ann <ann@example.com> first",
    ]
    assert sorted(git("ls-files", cwd=clone).splitlines()) == ["docs/.gitkeep", "link", "moved/a.txt", "run.sh"]
    assert os.access(clone / "run.sh", os.X_OK) and os.readlink(clone / "link") == "run.sh"

    folder = codecommit.get_folder(repositoryName=name, folderPath="")
    assert [f["absolutePath"] for f in folder["subFolders"]] == ["docs", "moved"]
    assert [(f["relativePath"], f["fileMode"]) for f in folder["files"]] == [("run.sh", "EXECUTABLE")]
    assert [f["absolutePath"] for f in folder["symbolicLinks"]] == ["link"] and folder["treeId"] == two["treeId"]
    inner = codecommit.get_folder(repositoryName=name, folderPath="moved/", commitSpecifier=two["commitId"])
    assert inner["files"][0]["absolutePath"] == "moved/a.txt" and inner["files"][0]["relativePath"] == "a.txt"
    blob = inner["files"][0]["blobId"]
    assert codecommit.get_blob(repositoryName=name, blobId=blob)["content"] == b"a\n"
    with refused("BlobIdDoesNotExistException"):
        codecommit.get_blob(repositoryName=name, blobId=two["treeId"])
    with refused("FolderDoesNotExistException"):
        codecommit.get_folder(repositoryName=name, folderPath="run.sh")
    with refused("FileDoesNotExistException"):
        codecommit.get_file(repositoryName=name, filePath="moved")
    for specifier, code in [("no-such", "CommitDoesNotExistException"), ("a b", "InvalidCommitException"), ("--all", "InvalidCommitException")]:
        with refused(code):
            codecommit.get_file(repositoryName=name, filePath="x", commitSpecifier=specifier)

    changes = codecommit.get_differences(repositoryName=name, beforeCommitSpecifier=one["commitId"], afterCommitSpecifier="main")["differences"]
    by_path = {(c.get("afterBlob") or c["beforeBlob"])["path"]: c["changeType"] for c in changes}
    assert by_path == {"docs/.gitkeep": "A", "docs/a.txt": "D", "link": "A", "moved/a.txt": "A", "run.sh": "A"}
    pages = [codecommit.get_differences(repositoryName=name, afterCommitSpecifier="main", MaxResults=3)]
    pages.append(codecommit.get_differences(repositoryName=name, afterCommitSpecifier="main", MaxResults=3, NextToken=pages[0]["NextToken"]))
    assert [len(page["differences"]) for page in pages] == [3, 1] and "NextToken" not in pages[1]
    narrow = codecommit.get_differences(repositoryName=name, beforeCommitSpecifier=one["commitId"], afterCommitSpecifier="main", afterPath="moved", beforePath="moved")
    assert [c["afterBlob"]["path"] for c in narrow["differences"]] == ["moved/a.txt"]
    with refused("PathDoesNotExistException"):
        codecommit.get_differences(repositoryName=name, afterCommitSpecifier="main", afterPath="nowhere")

    three = codecommit.delete_file(filePath="run.sh", parentCommitId=two["commitId"], **of)
    found = codecommit.batch_get_commits(repositoryName=name, commitIds=[three["commitId"], "b" * 40])
    assert [c["commitId"] for c in found["commits"]] == [three["commitId"]]
    assert found["commits"][0]["author"]["name"] == "admin" and found["commits"][0]["parents"] == [two["commitId"]]
    assert found["errors"][0]["errorCode"] == "CommitIdDoesNotExistException"


def test_repositories_and_branches(neargate, codecommit, repository):
    name = repository["repositoryName"]
    with refused("RepositoryNameExistsException"):
        codecommit.create_repository(repositoryName=name)
    for bad in ["a b", "x.git", "a/b", "x" * 101]:
        with refused("InvalidRepositoryNameException"):
            codecommit.create_repository(repositoryName=bad)
    tip = codecommit.put_file(repositoryName=name, branchName="trunk", filePath="a", fileContent=b"a")["commitId"]
    assert codecommit.get_repository(repositoryName=name)["repositoryMetadata"]["defaultBranch"] == "trunk"
    codecommit.create_branch(repositoryName=name, branchName="next", commitId=tip)
    with refused("BranchNameExistsException"):
        codecommit.create_branch(repositoryName=name, branchName="next", commitId=tip)
    with refused("CommitDoesNotExistException"):
        codecommit.create_branch(repositoryName=name, branchName="x", commitId="a" * 40)
    for bad in ["a..b", "-x", "a b", "HEAD"]:
        with refused("InvalidBranchNameException"):
            codecommit.create_branch(repositoryName=name, branchName=bad, commitId=tip)
    with refused("DefaultBranchCannotBeDeletedException"):
        codecommit.delete_branch(repositoryName=name, branchName="trunk")
    codecommit.update_default_branch(repositoryName=name, defaultBranchName="next")
    with refused("BranchDoesNotExistException"):
        codecommit.update_default_branch(repositoryName=name, defaultBranchName="nowhere")
    assert codecommit.delete_branch(repositoryName=name, branchName="trunk")["deletedBranch"]["commitId"] == tip
    assert "deletedBranch" not in codecommit.delete_branch(repositoryName=name, branchName="trunk")
    with refused("BranchDoesNotExistException"):
        codecommit.get_branch(repositoryName=name, branchName="trunk")

    codecommit.update_repository_description(repositoryName=name, repositoryDescription="what it is")
    codecommit.update_repository_name(oldName=name, newName=f"{name}-new")
    with refused("RepositoryDoesNotExistException"):
        codecommit.get_repository(repositoryName=name)
    found = codecommit.get_repository(repositoryName=f"{name}-new")["repositoryMetadata"]
    assert found["repositoryId"] == repository["repositoryId"] and found["repositoryDescription"] == "what it is"
    assert codecommit.get_branch(repositoryName=f"{name}-new", branchName="next")["branch"]["commitId"] == tip
    codecommit.update_repository_name(oldName=f"{name}-new", newName=name)
    batch = codecommit.batch_get_repositories(repositoryNames=[name, "nothing"])
    assert [r["repositoryName"] for r in batch["repositories"]] == [name] and batch["repositoriesNotFound"] == ["nothing"]

    arn = repository["Arn"]
    codecommit.tag_resource(resourceArn=arn, tags={"team": "a", "stage": "b"})
    codecommit.untag_resource(resourceArn=arn, tagKeys=["stage"])
    assert codecommit.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "a"}
    with refused("InvalidSystemTagUsageException"):
        codecommit.tag_resource(resourceArn=arn, tags={"aws:x": "y"})
    with refused("ValidationException", "KMS"):
        codecommit.create_repository(repositoryName="sealed", kmsKeyId="alias/mine")

    by_name = [r["repositoryName"] for r in codecommit.list_repositories()["repositories"]]
    assert name in by_name and by_name == sorted(by_name)
    latest = codecommit.list_repositories(sortBy="lastModifiedDate", order="descending")["repositories"]
    assert latest[0]["repositoryName"] == name
    # Two accounts and two regions are separate worlds.
    for other in [neargate.client("codecommit", region="eu-west-1"), neargate.client("codecommit", account="210987654321")]:
        assert other.list_repositories()["repositories"] == []
    directory = neargate.data_dir / "codecommit" / f"{repository['repositoryId']}.git"
    assert directory.is_dir()
    assert codecommit.delete_repository(repositoryName=name)["repositoryId"] == repository["repositoryId"]
    assert not directory.exists()
    assert "repositoryId" not in codecommit.delete_repository(repositoryName=name)


def test_many_push_at_once(neargate, codecommit, repository, tmp_path):
    name, url = repository["repositoryName"], repository["cloneUrlHttp"]
    codecommit.put_file(repositoryName=name, branchName="main", filePath="a", fileContent=b"a")

    def one(number):
        git = Git(neargate, tmp_path / str(number))
        clone = git.directory / "clone"
        git("clone", "-q", url, str(clone))
        tips = []
        for turn in range(5):
            tips.append(git.commit(clone, f"{number}.txt", str(turn)))
            git("push", "-q", "origin", f"HEAD:refs/heads/b{number}", cwd=clone)
            seen = codecommit.get_branch(repositoryName=name, branchName=f"b{number}")["branch"]["commitId"]
            assert seen == tips[-1], "what was pushed is seen at once"

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(6)))
    # On one branch only one of them is first.
    tip = codecommit.get_branch(repositoryName=name, branchName="main")["branch"]["commitId"]

    def race(number):
        try:
            codecommit.put_file(repositoryName=name, branchName="main", filePath=f"race-{number}", fileContent=b"x", parentCommitId=tip)
            return 1
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ParentCommitIdOutdatedException"
            return 0

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(race, range(12))) == 1


def test_bad_bytes(neargate, codecommit, repository, tmp_path):
    """Whatever arrives is answered, and harms nothing."""
    name = repository["repositoryName"]
    tip = codecommit.put_file(repositoryName=name, branchName="main", filePath="a", fileContent=b"a")["commitId"]
    iam = neargate.client("iam")
    login = iam.create_service_specific_credential(UserName="admin", ServiceName="codecommit.amazonaws.com")["ServiceSpecificCredential"]
    basic = base64.b64encode(f"{login['ServiceUserName']}:{login['ServicePassword']}".encode()).decode()

    def ask(path, body=None, authorization=f"Basic {basic}", **headers):
        url = f"http://127.0.0.1:{PORT}/v1/repos/{path}"
        headers = {"Host": f"git-codecommit.{REGION}.localhost:{PORT}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if authorization:
            headers["Authorization"] = authorization
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    assert ask(f"{name}/info/refs?service=git-upload-pack")[0] == 200
    assert ask(f"{name}/info/refs?service=git-upload-pack", authorization=None)[0] == 401
    for bad in ["Basic", "Basic %%%", "Bearer x", "Basic " + base64.b64encode(b"nocolon").decode(), "Basic " + "A" * 9000]:
        assert ask(f"{name}/info/refs?service=git-upload-pack", authorization=bad)[0] == 403, bad
    # No dumb protocol, no other paths, no way out.
    assert ask(f"{name}/info/refs")[0] == 403
    for path in ["HEAD", "config", "objects/info/packs", "../../x/info/refs", "info/refs/x"]:
        assert ask(f"{name}/{path}")[0] == 404, path
    assert ask("..%2f..%2fetc/info/refs?service=git-upload-pack")[0] == 404
    push, pull = "application/x-git-receive-pack-request", "application/x-git-upload-pack-request"
    for body in [b"", b"zzzz", b"0003", b"garbage" * 1000, b"ffff" + b"a" * 100, b"0014push-cert\x00abcdef"]:
        assert ask(f"{name}/git-receive-pack", body, Content_Type=push)[0] == 400, body[:20]
    line = f"{tip} {'b' * 40} refs/heads/main\0 report-status".encode()
    command = f"{len(line) + 4:04x}".encode() + line + b"0000"
    status, answer = ask(f"{name}/git-receive-pack", command + b"PACK" + os.urandom(500), Content_Type=push)
    assert status == 200 and b"unpack" in answer and b"ng refs/heads/main" in answer
    line = f"{ZERO} {tip} refs/heads/../../evil\0 report-status".encode()
    command = f"{len(line) + 4:04x}".encode() + line + b"0000"
    assert b"ng refs/heads/../../evil" in ask(f"{name}/git-receive-pack", command, Content_Type=push)[1]
    bomb = gzip.compress(bytes(100 << 20))
    assert ask(f"{name}/git-receive-pack", bomb, Content_Type=push, Content_Encoding="gzip")[0] == 400
    assert ask(f"{name}/git-upload-pack", b"x", Content_Type=pull, Content_Encoding="br")[0] == 415
    ask(f"{name}/git-upload-pack", os.urandom(10000), Content_Type=pull)
    assert codecommit.get_branch(repositoryName=name, branchName="main")["branch"]["commitId"] == tip
    assert codecommit.list_branches(repositoryName=name)["branches"] == ["main"]


TEMPLATE = """
Parameters: {Name: {Type: String}, Description: {Type: String, Default: ""}}
Resources:
  Repository:
    Type: AWS::CodeCommit::Repository
    Properties:
      RepositoryName: !Ref Name
      RepositoryDescription: !Ref Description
      Tags: [{Key: team, Value: web}]
Outputs:
  Id: {Value: !Ref Repository}
  Arn: {Value: !GetAtt Repository.Arn}
  Url: {Value: !GetAtt Repository.CloneUrlHttp}
  Name: {Value: !GetAtt Repository.Name}
"""


def test_in_a_stack(neargate, codecommit):
    stacks = Stacks(neargate)
    parameters = lambda **more: [{"ParameterKey": k, "ParameterValue": v} for k, v in more.items()]
    stacks.create("with-a-repository", TEMPLATE, Parameters=parameters(Name="stacked", Description="one"))
    outputs = stacks.outputs("with-a-repository")
    found = codecommit.get_repository(repositoryName="stacked")["repositoryMetadata"]
    assert outputs == {"Id": found["repositoryId"], "Arn": found["Arn"], "Url": found["cloneUrlHttp"], "Name": "stacked"}
    assert codecommit.list_tags_for_resource(resourceArn=found["Arn"])["tags"] == {"team": "web"}
    stacks.update("with-a-repository", TEMPLATE, Parameters=parameters(Name="renamed", Description="two"))
    renamed = codecommit.get_repository(repositoryName="renamed")["repositoryMetadata"]
    assert renamed["repositoryId"] == found["repositoryId"] and renamed["repositoryDescription"] == "two"
    stacks.delete("with-a-repository")
    with refused("RepositoryDoesNotExistException"):
        codecommit.get_repository(repositoryName="renamed")


def test_a_crash_loses_no_push(tmp_path):
    """`kill -9` while many push: what was acknowledged is there, and records and repositories agree again."""
    plane = Neargate(tmp_path / "data", PORT + 17).start()
    try:
        for round in range(3):
            client = plane.client("codecommit")
            name = f"crash-{round}"
            url = client.create_repository(repositoryName=name)["repositoryMetadata"]["cloneUrlHttp"]
            acknowledged, stop = {}, threading.Event()

            def push(number):
                git = Git(plane, tmp_path / f"{round}-{number}")
                tree = git.work(url)
                turn = 0
                while not stop.is_set():
                    turn += 1
                    tip = git.commit(tree, f"{number}", str(turn))
                    if git.try_("push", "-q", "origin", f"HEAD:refs/heads/b{number}", cwd=tree).returncode != 0:
                        return
                    acknowledged[number] = tip

            with ThreadPoolExecutor(4) as pool:
                pushes = [pool.submit(push, number) for number in range(4)]
                eventually(lambda: len(acknowledged) == 4, "everyone has pushed", 60)
                plane.kill()
                stop.set()
                for one in pushes:
                    one.result()
            plane.start()
            client = plane.client("codecommit")
            git = Git(plane, tmp_path / f"{round}-look")

            def settled():
                listed = client.list_branches(repositoryName=name)["branches"]
                told = {f"refs/heads/{b}": client.get_branch(repositoryName=name, branchName=b)["branch"]["commitId"] for b in listed}
                lines = [line.split("\t") for line in git("ls-remote", "--heads", url).splitlines()]
                return told if told == {reference: tip for tip, reference in lines} else None

            told = eventually(settled, "records and repository agree")
            for number, tip in acknowledged.items():
                # A push that was under way may have got through without its answer.
                history = git("-C", str(tmp_path / f"{round}-{number}" / "work"), "rev-list", told[f"refs/heads/b{number}"])
                assert tip in history.splitlines()
            clone = tmp_path / f"{round}-clone"
            git("clone", "-q", url, str(clone))
            git("fsck", "--strict", cwd=clone)
        # A directory that nothing names goes at the next start.
        (plane.data_dir / "codecommit" / "stray.git").mkdir()
        plane.kill()
        plane.start()
        eventually(lambda: not (plane.data_dir / "codecommit" / "stray.git").exists(), "the stray directory is gone")
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)
