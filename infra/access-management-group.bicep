metadata description = 'Gives the app access to every subscription below a management group, those of tomorrow included'

// A Bicep file has one scope, so this one cannot call modules/access.bicep. The actions are the same file for both.
targetScope = 'managementGroup'

@description('Object id of the app\'s identity: the output IDENTITY_PRINCIPAL_ID of main.bicep.')
@minLength(36)
@maxLength(36)
param principalId string

// actions.json says which call of the app needs which action.
var actions = objectKeys(loadJsonContent('actions.json'))

resource role 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(managementGroup().id, 'aks-kubelet-guard')
  properties: {
    // A role's name is unique in its tenant.
    roleName: 'AKS Kubelet Guard (${managementGroup().name})'
    description: 'Finds AKS clusters and their nodes, and runs commands on the nodes, as root.'
    type: 'CustomRole'
    permissions: [
      {
        actions: actions
        notActions: []
      }
    ]
    // Azure allows one management group here, and no data actions in such a role.
    assignableScopes: [
      managementGroup().id
    ]
  }
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(managementGroup().id, principalId, role.id)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.id
  }
}
